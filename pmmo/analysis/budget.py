"""Had a variant stopped improving when its epochs ended? Otherwise its budget judges it.

The rise of a cycle is the best weighted F1 on dev in the last third of the epochs minus the best
before. A variant has stopped improving if its rise, mean over cycles, is at most `margin`
(`verdicts.rise` in params.yaml). Where F1 on dev only wavers, the rise is near zero or below,
because two thirds of the epochs have the better chance of the highest value.
"""

from collections.abc import Mapping

import numpy as np

from pmmo.analysis.run_reader import Run


def rise(run: Run) -> float:
    """What the last third of the epochs adds on dev, mean over cycles; NaN of a single epoch."""
    dev = run.curves.pivot(index="epoch", columns="cycle", values="dev_weighted").to_numpy()
    before = len(dev) - -(-len(dev) // 3)  # (epochs, cycles)
    if before == 0:
        return np.nan
    return float((dev[before:].max(axis=0) - dev[:before].max(axis=0)).mean())


def budget(runs: Mapping[str, Run], margin: float) -> dict[str, object]:
    """Per row its epochs, what the last third of them adds, and whether it had stopped."""
    rises = {name: rise(run) for name, run in runs.items()}
    return {
        "margin": margin,
        "rows": {
            name: {
                "epochs": int(runs[name].curves["epoch"].max()),
                "best_epochs": [cycle.best_epoch for cycle in runs[name].cycles],
                "rise": found,
                "stopped": bool(found <= margin),
            }
            for name, found in rises.items()
        },
    }


def rising(facts: Mapping) -> list[str]:
    """The rows of `budget` that had not stopped improving."""
    return [name for name, row in facts["rows"].items() if not row["stopped"]]
