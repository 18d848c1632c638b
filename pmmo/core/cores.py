"""The cores that this process may use, and the environment variable that shares them out."""

import os

WORKERS = "PMMO_WORKERS"  # cycles side by side in one stage on a CPU; changes no number


def usable_cores() -> int:
    """The cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
