"""Did a variant train? Its weighted F1 beside what is plainly reachable on the same movies.

A variant did not train if its best epoch on dev, in the mean over cycles, stays more than `margin`
below the reference, unless it fits its training movies nearly as well as logistic regression does:
such a row has trained and overfits, which is a finding (Figure 2). The reference is the dev score
of logistic regression, on the columns that the row sees, and, for PM+MO, that of the same network
without variational inference (M+MO) if it is higher.
"""

from collections.abc import Mapping

import numpy as np

from pmmo.analysis.logistic import Scores
from pmmo.analysis.run_reader import Run

WITHOUT_VI = "mmo"
FITS = 0.9  # of logistic regression's score on the training movies


def best(run: Run, score: str) -> float:
    """The best epoch's score, mean over cycles; NaN where it was not recorded."""
    return float(run.curves.groupby("cycle")[score].max().mean())


def training(
    runs: Mapping[str, Run], regressions: Mapping[str, Scores], margin: float
) -> dict[str, object]:
    """Per row what it reached, the score that it had to come near, and whether it trained.

    `regressions` has those of `logistic.regressions`.
    """
    logistic = {
        inputs: {split: found[split]["weighted"] for split in ("train", "dev")}
        for inputs, found in regressions.items()
    }
    without_vi = best(runs[WITHOUT_VI], "dev_weighted") if WITHOUT_VI in runs else -np.inf
    rows = {}
    for name, run in runs.items():
        plain = logistic[run.settings.get("inputs") or "both"]
        reference = plain["dev"]
        if run.settings["system"] == "pmmo":
            reference = max(reference, without_vi)
        dev, train = best(run, "dev_weighted"), best(run, "train_weighted")
        rows[name] = {
            "dev_weighted": dev,
            "train_weighted": train,
            "reference": reference,
            "trained": dev >= reference - margin or train >= FITS * plain["train"],
        }
    return {"margin": margin, "logistic": logistic["both"], "rows": rows}


def untrained(facts: Mapping) -> list[str]:
    """The rows of `training` that did not train."""
    return [name for name, row in facts["rows"].items() if not row["trained"]]
