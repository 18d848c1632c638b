"""One temperature per model: p becomes sigmoid(logit(p) / T) (Guo et al. 2017), with T from dev.

Above 1 it takes confidence away. It keeps the order of a genre's movies, and 1/2 stays 1/2.
"""

import numpy as np

from pmmo.decisions.thresholds import folds

LOWEST, HIGHEST = 0.05, 20.0
EDGE = float(np.finfo(np.float32).eps)  # a 32-bit sigmoid reaches 0 and 1, where logits have no end


def clipped(probabilities: np.ndarray) -> np.ndarray:
    return np.clip(probabilities.astype(np.float64), EDGE, 1 - EDGE)


def logits(probabilities: np.ndarray) -> np.ndarray:
    p = clipped(probabilities)
    return np.log(p) - np.log1p(-p)


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The calibrated probabilities, in float64 and the same shape."""
    return 1 / (1 + np.exp(-logits(probabilities) / temperature))


def nll(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log-likelihood, in nats per (movie, genre) pair."""
    p = clipped(probabilities)
    return float(-np.log(np.where(truth, p, 1 - p)).mean())


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """T of the smallest NLL of (N, G) probabilities against 0/1 `truth`, LOWEST to HIGHEST.

    The NLL is convex in 1/T, so its derivative has one zero there, or T lies at a bound.
    """
    from scipy.optimize import brentq  # here: importing it takes longer than finding T

    z, y = logits(probabilities), truth.astype(np.float64)

    def slope(inverse: float) -> float:
        return float(((1 / (1 + np.exp(-z * inverse)) - y) * z).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    return 1 / brentq(slope, low, high, xtol=1e-12)


def cross_fitted(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N, G), each movie calibrated by a temperature from the other folds, as in `tune`."""
    found = np.empty(probabilities.shape)
    for part in folds(len(truth)):
        temperature = fit_temperature(truth[~part], probabilities[~part])
        found[part] = calibrate(probabilities[part], temperature)
    return found
