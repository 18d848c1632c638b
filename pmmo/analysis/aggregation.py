"""Compute the numbers of every report from finished runs, without drawing or formatting.

`aggregate` returns one nested dictionary of plain values, keyed by topic and then by variant.
Shapes: C cycles, N movies, G genres.
"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pmmo.analysis.calibration import MEASURES, measures, pooled
from pmmo.analysis.intervals import WEIGHTED, f1_points
from pmmo.analysis.metrics import f1_scores
from pmmo.analysis.run_reader import Movies, Run
from pmmo.core.errors import PmmoError
from pmmo.core.names import AVERAGES, CURVES
from pmmo.decisions.temperature import calibrate, fit_temperature

LIBRARIES = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib")
SOFTWARE = ("torch", "pyro", "precision")  # of a row's environment; the rest is machine
# what the system sees -> the predictions of that kind
INPUTS = {"both": "test", "text only": "test_image_mean", "image only": "test_text_mean"}


def mean_sd(values: ArrayLike) -> dict[str, Any]:
    """`mean` and `sd`, standard deviation, over cycles (first axis); NaN as sd of one cycle."""
    found = np.asarray(values, dtype=float)
    sd = found.std(axis=0, ddof=1) if len(found) > 1 else np.full(found.shape[1:], np.nan)
    return {"mean": found.mean(axis=0), "sd": sd}


def aggregate(runs: Mapping[str, Run], movies: Movies) -> dict[str, object]:
    """Every number the reports show that needs no comparison of rows."""
    return {
        "data": data_facts(movies),
        "variants": {name: variant_facts(run) for name, run in runs.items()},
        "scores": {name: scores(run) for name, run in runs.items()},
        "genres": {
            name: mean_sd([cycle.test_per_genre for cycle in run.cycles])
            for name, run in runs.items()
        },
        "curves": {name: curve_means(run) for name, run in runs.items()},
        "calibration": {name: calibration(run, movies) for name, run in runs.items()},
        "ablation": {name: ablation(run, movies) for name, run in runs.items()},
        "gates": {name: gates(run, movies) for name, run in runs.items()},
        "versions": {library: version(library) for library in LIBRARIES},
    }


def metrics(runs: Mapping[str, Run]) -> dict[str, dict[str, float]]:
    """{variant: {f1_micro, ...}}: test scores, means over cycles, for `dvc metrics`."""
    return {
        name: {f"f1_{a}": float(np.mean([c.test[a] for c in run.cycles])) for a in AVERAGES}
        for name, run in runs.items()
    }


def data_facts(movies: Movies) -> dict[str, Any]:
    """Source, splits and genre counts (Figure 1)."""
    return {
        "provenance": movies.provenance,
        "rows": len(movies.labels),
        "splits": movies.splits,
        "genres": list(movies.genres),
        "counts": movies.labels.sum(axis=0, dtype=int),
        "test_counts": movies.truth("test").sum(axis=0, dtype=int),
        "nan_text": {key: movies.nan_text[key] for key in ("policy", "count")},
        "unlabelled": movies.unlabelled,
    }


def variant_facts(run: Run) -> dict[str, object]:
    """The settings, seeds and libraries of a run."""
    return {
        "label": run.label,
        "settings": run.settings,
        "parameters": run.parameters,
        "random_weights": run.random_weights,
        "seeds": [cycle.seed for cycle in run.cycles],
        "best_epochs": [cycle.best_epoch for cycle in run.cycles],
        "software": {key: run.environment[key] for key in SOFTWARE},
    }


def scores(run: Run) -> dict[str, dict[str, Any]]:
    """Mean and deviation over cycles of the four F-scores, on dev and test."""
    return {
        split: {
            average: mean_sd([getattr(cycle, split)[average] for cycle in run.cycles])
            for average in AVERAGES
        }
        for split in ("dev", "test")
    }


def score_table(runs: Mapping[str, Run]) -> pd.DataFrame:
    """One row per variant, cycle and split."""
    lines = [
        {
            "variant": name,
            "cycle": cycle.cycle,
            "seed": cycle.seed,
            "best_epoch": cycle.best_epoch,
            "split": split,
        }
        | {f"f1_{average}": getattr(cycle, split)[average] for average in AVERAGES}
        for name, run in runs.items()
        for cycle in run.cycles
        for split in ("dev", "test")
    ]
    return pd.DataFrame(lines)


def curve_table(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The learning curves of every variant, cycle and epoch."""
    return pd.concat(
        [run.curves.assign(variant=name) for name, run in runs.items()], ignore_index=True
    )[["variant", "cycle", "epoch", *CURVES]]


def curve_means(run: Run) -> dict[str, Any]:
    """Mean and deviation over cycles of each curve that the system has, by epoch."""
    epochs = run.curves.groupby("epoch")
    present = [column for column in CURVES if run.curves[column].notna().any()]
    return {
        "epoch": list(epochs.groups),
        **{
            column: {
                "mean": epochs[column].mean().to_numpy(),
                "sd": epochs[column].std(ddof=1).to_numpy(),
            }
            for column in present
        },
    }


def calibration(run: Run, movies: Movies) -> dict[str, Any]:
    """NLL, Brier score and calibration error on test: of the prediction, before and after each
    cycle's temperature, and of K samples.
    """
    truth, own = movies.truth("test"), run.probabilities("test")  # (C, N, G)
    dev = run.probabilities("dev")
    temperatures = [fit_temperature(movies.truth("dev"), p) for p in dev]
    kinds = {
        "prediction": own,
        "calibrated": np.stack([calibrate(*pair) for pair in zip(own, temperatures, strict=True)]),
        "samples": run.predictions("test_samples"),
    }
    found: dict[str, Any] = {}
    for kind, probabilities in kinds.items():
        if probabilities is None:
            continue
        cycles = [measures(truth, p) for p in probabilities]
        found[kind] = {m: mean_sd([cycle[m] for cycle in cycles]) for m in MEASURES} | {
            "reliability": asdict(pooled(truth, probabilities))
        }
    found["calibrated"]["temperature"] = mean_sd(temperatures)
    return found


def ablation(run: Run, movies: Movies) -> dict[str, Any]:
    """Test weighted F1 with the text or the image features replaced by their training mean."""
    truth = movies.truth("test")
    found = {}
    for kind, key in INPUTS.items():
        probabilities = run.predictions(key)
        if probabilities is not None:
            weighted = f1_points(truth, probabilities > run.threshold)[:, WEIGHTED]
            found[kind] = mean_sd(weighted)
    return found


def gates(run: Run, movies: Movies) -> dict[str, Any] | None:
    """Mean gate over test movies (1 = image only), overall and by genre."""
    gate = run.predictions("test_gate")  # (C, N)
    if gate is None:
        return None
    truth = movies.truth("test").astype(float)  # (N, G)
    with np.errstate(invalid="ignore"):  # a genre without a test movie has no mean
        by_genre = gate @ truth / truth.sum(axis=0)  # (C, G)
    return {"overall": mean_sd(gate.mean(axis=1)), "genres": mean_sd(by_genre)}


def check_scores(run: Run, movies: Movies) -> None:
    """Raise PmmoError unless the stored predictions match these movies and the stored scores."""
    for split in ("dev", "test"):
        truth, predicted = movies.truth(split), run.predictions(split)
        if predicted is None or predicted.shape[1:] != truth.shape:
            raise PmmoError(
                f"{run.folder}: the {split} predictions are not of the {truth.shape[0]} movies and "
                f"{truth.shape[1]} genres in data/tensors. Run dvc repro train@{run.name}"
            )
        guesses = predicted > run.threshold
        ours = [list(f1_scores(truth, guess).values()) for guess in guesses]
        theirs = [list(getattr(cycle, split).values()) for cycle in run.cycles]
        if not np.allclose(ours, theirs, atol=1e-5):
            raise PmmoError(
                f"{run.folder}: the {split} predictions do not give the scores in summary.json "
                f"(threshold {run.threshold}). Train the row again: dvc repro -f train@{run.name}"
            )
