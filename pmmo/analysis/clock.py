"""What differs from run to run with the same numbers: seconds, and the machine.

It stays out of every file but reports/provenance.json, the cost table and the page.
"""

from collections.abc import Mapping

import numpy as np

from pmmo.analysis.aggregation import SOFTWARE, mean_sd
from pmmo.analysis.claims import judge_timed
from pmmo.analysis.comparisons import BASELINE, Evidence
from pmmo.analysis.run_reader import Run

SECONDS = ("seconds_per_epoch", "seconds_total")


def provenance(evidence: Evidence) -> dict[str, object]:
    """Machine and seconds of every row, and the claims that the clock decides."""
    runs = evidence.runs
    return {
        "machines": {name: machine(run) for name, run in runs.items()},
        "costs": costs(runs),
        "claims": judge_timed(evidence),
    }


def machine(run: Run) -> dict[str, object]:
    """What trained the row."""
    return {
        key: value for key, value in run.environment.items() if key not in (*SECONDS, *SOFTWARE)
    }


def costs(runs: Mapping[str, Run]) -> dict[str, object]:
    """Seconds per epoch (median of a cycle) and their ratio to the GMU's."""
    seconds = {name: run.environment["seconds_per_epoch"] for name, run in runs.items()}
    base = np.mean(seconds[BASELINE]) if BASELINE in seconds else np.nan
    return {
        name: mean_sd(seconds[name])
        | {
            "ratio": np.mean(seconds[name]) / base,
            "seconds_total": run.environment["seconds_total"],
        }
        for name, run in runs.items()
    }
