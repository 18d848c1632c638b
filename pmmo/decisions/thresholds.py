"""One threshold per genre that maximises its F1 on dev.

Shapes: N movies, G genres, T thresholds.
"""

import numpy as np

GRID = np.linspace(0.05, 0.95, 91)
FOLDS = 5


def folds(movies: int) -> list[np.ndarray]:
    """Masks (N,) of the parts that cross-fitting leaves out in turn, the same for all models."""
    fold = np.random.default_rng(0).permutation(movies) % FOLDS
    return [fold == k for k in range(FOLDS)]


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


def tune(
    truth: np.ndarray, probabilities: np.ndarray, default: float
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds (G,) from all of dev, and cross-fitted dev predictions (N, G).

    A cross-fitted prediction uses thresholds from the other folds. It scores the method on dev
    without the optimism of scoring thresholds on the movies that chose them.
    """
    parts = folds(len(truth))
    counts = [counts_by_threshold(truth[part], probabilities[part]) for part in parts]
    positives = [truth[part].sum(axis=0) for part in parts]
    total, positive = np.sum(counts, axis=0), np.sum(positives, axis=0)
    guesses = np.empty(truth.shape, dtype=bool)
    for part, own, own_positives in zip(parts, counts, positives, strict=True):
        chosen = best_thresholds(total - own, positive - own_positives, default)
        guesses[part] = probabilities[part] > chosen
    return best_thresholds(total, positive, default), guesses
