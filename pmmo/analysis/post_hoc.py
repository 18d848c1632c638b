"""Beyond the paper: cheap additions to a trained variant, chosen on dev and reported on test.

There are three, all on the stored predictions: the mean probability of all cycles as one ensemble,
the mean of K posterior samples, and one threshold per genre that maximises its F1 on dev. Nothing
is trained again. A last line has what `predict` gives by default: by running statistics, with the
choice among them that the run stored. Shapes: C cycles (1 for an ensemble), N movies, G genres.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from pmmo.analysis.intervals import WEIGHTED, f1_draws, f1_points, resample, two_way
from pmmo.analysis.run_reader import Movies, Run
from pmmo.core.names import AVERAGES
from pmmo.decisions.stored import DECISION, mean_of, read_decision
from pmmo.decisions.thresholds import tune

ROWS = ("gmu", "mmo", "pmmo-kl-l2")  # the three systems that the paper's text compares


def options(run: Run) -> Iterator[tuple[tuple[str, ...], np.ndarray, np.ndarray, bool]]:
    """Each combination of additions: names, dev and test (C, N, G), thresholds or not."""
    sampled = run.predictions("dev_samples") is not None
    for samples, ensemble, thresholds in product(
        (False, True) if sampled else (False,), (False, True), (False, True)
    ):
        suffix = "_samples" if samples else ""
        dev, test = run.probabilities(f"dev{suffix}"), run.probabilities(f"test{suffix}")
        if ensemble:
            dev, test = mean_of(dev)[None], mean_of(test)[None]
        switches = {
            "K samples": samples,
            f"ensemble of {len(run.cycles)}": ensemble,
            "thresholds": thresholds,
        }
        yield tuple(name for name, on in switches.items() if on), dev, test, thresholds


def guesses(truth: np.ndarray, dev: np.ndarray, test: np.ndarray, tuned: bool, threshold: float):
    """Predictions (C, N, G), 0/1, on dev and test."""
    if not tuned:
        return dev > threshold, test > threshold
    found = [tune(truth, p, threshold) for p in dev]
    on_test = [p > chosen for p, (chosen, _) in zip(test, found, strict=True)]
    return np.stack([on_dev for _, on_dev in found]), np.stack(on_test)


def as_predicted(run: Run) -> tuple[tuple[str, ...], float, np.ndarray]:
    """The stored choice: names, its weighted F1 on dev, and its predictions (1, N, G) on test."""
    found = run.predictions("test_running")
    test = run.probabilities("test") if found is None else found  # (C, N, G)
    decision = read_decision(run.folder / DECISION, test.shape[-1])
    numbers = [cycle.cycle for cycle in run.cycles]
    test = test[[numbers.index(cycle) for cycle in decision.cycles]]
    chosen = mean_of(test) if decision.ensemble else test[decision.cycles.index(decision.best)]
    fitted = decision.fitted["running"][decision.predictor]
    threshold = np.array(fitted.thresholds) if decision.thresholds else run.threshold
    switches = (
        f"ensemble of {len(test)}" if decision.ensemble else "best cycle",
        *(["thresholds"] if decision.thresholds else []),
    )
    dev = fitted.f1_thresholds if decision.thresholds else fitted.f1
    return switches, dev, (chosen > threshold)[None]


def row(run: Run, movies: Movies, weights: np.ndarray, level: float) -> list[dict[str, Any]]:
    """Every option of one variant, with dev and test scores and the gain over the plain variant.

    The interval of the gain is that of `two_way`. There is only one ensemble, which is compared
    with each cycle, so the interval does not include its variation over other seeds.
    """
    lines = []
    for switches, dev, test, tuned in options(run):
        on_dev, on_test = guesses(movies.truth("dev"), dev, test, tuned, run.threshold)
        score = f1_points(movies.truth("dev"), on_dev)[:, WEIGHTED].mean()
        lines.append((switches, score, on_test))
    found, base = [], None
    for switches, score, on_test in (*lines, as_predicted(run)):
        points = f1_points(movies.truth("test"), on_test)[:, : len(AVERAGES)]
        draws = f1_draws(weights, movies.truth("test"), on_test)[:, :, WEIGHTED]
        base = (points[:, WEIGHTED], draws) if base is None else base
        gain = two_way(points[:, WEIGHTED] - base[0], draws - base[1]).interval(level)
        found.append(
            {
                "variant": run.name,
                "switches": list(switches),
                "dev": score,
                "test": dict(zip(AVERAGES, points.mean(axis=0), strict=True)),
            }
            | gain.named("gain")
        )
    chosen, default = max(found[:-1], key=lambda entry: entry["dev"]), found[-1]
    return [entry | {"chosen": entry is chosen, "predict": entry is default} for entry in found]


def beyond(
    runs: Mapping[str, Run], movies: Movies, level: float, draws: int, seed: int
) -> list[dict[str, Any]]:
    """The options of the three systems; the best of each system on dev is marked `chosen`."""
    weights = resample(len(movies.truth("test")), draws, seed)
    return [
        entry for name in ROWS if name in runs for entry in row(runs[name], movies, weights, level)
    ]
