"""Beyond the paper: cheap additions to a trained variant, chosen on dev and reported on test.

There are three, all on the stored predictions: the mean probability of all cycles as one ensemble,
the mean of K posterior samples, and one threshold per genre that maximises its F1 on dev. Nothing
is trained again. Shapes: C cycles (1 for an ensemble), N movies, G genres, T thresholds.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from pmmo.analysis.intervals import f1_draws, f1_points, resample, two_way
from pmmo.analysis.run_reader import Movies, Run
from pmmo.core.names import AVERAGES

ROWS = ("gmu", "mmo", "pmmo-kl-l2")  # the three systems that the paper's text compares
GRID = np.linspace(0.05, 0.95, 91)
FOLDS = 5
WEIGHTED = AVERAGES.index("weighted")


def counts_by_threshold(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(2, G, T): true positives and positive predictions at each threshold of GRID."""
    genres = truth.shape[1]
    above = np.searchsorted(GRID, probabilities)  # (N, G) thresholds below the probability
    cell = (np.arange(genres) * (len(GRID) + 1) + above).ravel()
    size = genres * (len(GRID) + 1)
    histograms = np.stack(
        [np.bincount(cell, truth.ravel(), size), np.bincount(cell, minlength=size)]
    ).reshape(2, genres, len(GRID) + 1)
    # threshold t predicts a movie if more than t thresholds lie below its probability
    return histograms[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]


def best_thresholds(counts: np.ndarray, positives: np.ndarray, default: float) -> np.ndarray:
    """The thresholds (G,) of best F1; among equals, the nearest to `default`."""
    hits, guesses = counts
    f1 = 2 * hits / np.maximum(guesses + positives[:, None], 1)
    return GRID[np.argmax(f1 - 1e-9 * np.abs(GRID - default), axis=1)]


def tune(truth: np.ndarray, probabilities: np.ndarray, default: float):
    """Thresholds (G,) from all of dev, and cross-fitted dev predictions (N, G).

    A cross-fitted prediction uses thresholds from the other folds. It scores the method on dev
    without the optimism of scoring thresholds on the movies that chose them.
    """
    fold = np.random.default_rng(0).permutation(len(truth)) % FOLDS
    parts = [fold == k for k in range(FOLDS)]
    counts = [counts_by_threshold(truth[part], probabilities[part]) for part in parts]
    positives = [truth[part].sum(axis=0) for part in parts]
    total, positive = np.sum(counts, axis=0), np.sum(positives, axis=0)
    guesses = np.empty(truth.shape, dtype=bool)
    for part, own, own_positives in zip(parts, counts, positives, strict=True):
        chosen = best_thresholds(total - own, positive - own_positives, default)
        guesses[part] = probabilities[part] > chosen
    return best_thresholds(total, positive, default), guesses


def options(run: Run) -> Iterator[tuple[tuple[str, ...], np.ndarray, np.ndarray, bool]]:
    """Each combination of additions: names, dev and test (C, N, G), thresholds or not."""
    sampled = run.predictions("dev_samples") is not None
    for samples, ensemble, thresholds in product(
        (False, True) if sampled else (False,), (False, True), (False, True)
    ):
        suffix = "_samples" if samples else ""
        dev, test = run.probabilities(f"dev{suffix}"), run.probabilities(f"test{suffix}")
        if ensemble:
            dev, test = dev.mean(axis=0, keepdims=True), test.mean(axis=0, keepdims=True)
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


def row(run: Run, movies: Movies, weights: np.ndarray, level: float) -> list[dict[str, Any]]:
    """Every option of one variant, with dev and test scores and the gain over the plain variant.

    The interval of the gain is that of `two_way`. There is only one ensemble, which is compared
    with each cycle, so the interval does not include its variation over other seeds.
    """
    found, base = [], None
    for switches, dev, test, tuned in options(run):
        on_dev, on_test = guesses(movies.truth("dev"), dev, test, tuned, run.threshold)
        points = f1_points(movies.truth("test"), on_test)[:, : len(AVERAGES)]
        draws = f1_draws(weights, movies.truth("test"), on_test)[:, :, WEIGHTED]
        base = (points[:, WEIGHTED], draws) if base is None else base
        gain = two_way(points[:, WEIGHTED] - base[0], draws - base[1]).interval(level)
        found.append(
            {
                "variant": run.name,
                "switches": list(switches),
                "dev": f1_points(movies.truth("dev"), on_dev)[:, WEIGHTED].mean(),
                "test": dict(zip(AVERAGES, points.mean(axis=0), strict=True)),
                "gain": gain.estimate,
                "low": gain.low,
                "high": gain.high,
            }
        )
    chosen = max(found, key=lambda entry: entry["dev"])
    return [entry | {"chosen": entry is chosen} for entry in found]


def beyond(
    runs: Mapping[str, Run], movies: Movies, level: float, draws: int, seed: int
) -> list[dict[str, Any]]:
    """The options of the three systems; the best of each system on dev is marked `chosen`."""
    weights = resample(len(movies.truth("test")), draws, seed)
    return [
        entry for name in ROWS if name in runs for entry in row(runs[name], movies, weights, level)
    ]
