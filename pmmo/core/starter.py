"""A stage ends with the process that started it.

DVC, when it is killed, leaves its stage alone: that would train on and, in the end, overwrite the
results of a later run. A stage that somebody started by hand goes on, as under nohup.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

import psutil

STARTED_BY_DVC = "DVC_STAGE"  # DVC sets it for its stages
SECONDS_BETWEEN_LOOKS = 0.5


def end_with_starter(stage: str) -> None:
    """Watch DVC from a thread, if it started this process, and end without delay when it has gone.

    Nothing is lost but cycles under way: every file appears whole or not at all.
    """
    if STARTED_BY_DVC in os.environ:
        threading.Thread(target=watch, args=(stage, starters(stage)), daemon=True).start()


def starters(stage: str) -> list[psutil.Process]:
    """The parent; and DVC, where the parent is a shell that DVC started for the command."""
    try:
        parent = psutil.Process().parent()
        if parent is None:  # outside this container
            return []
        between = f"stages.{stage}" in parent.cmdline()[-1]
        return [parent, parent.parent()] if between else [parent]
    except (psutil.Error, IndexError):
        return []


def watch(stage: str, processes: list[psutil.Process]) -> NoReturn:
    while all(map(alive, processes)):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    with suppress(OSError):  # its terminal may have gone too
        print(
            f"{stage}: ends, since the process that started it has ended; finished cycles are kept",
            file=sys.stderr,
            flush=True,
        )
    os._exit(1)


def alive(process: psutil.Process) -> bool:
    """Running, and of this session: what adopts an orphan, such as init, is of another."""
    try:
        here = os.getsid(process.pid) == os.getsid(0)
        return here and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False
