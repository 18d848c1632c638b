"""Calibration of the probabilities: NLL, Brier score, calibration error, reliability.

Every (movie, genre) pair is one binary forecast, and all pairs have the same weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

BINS = 15
MEASURES = ("nll", "brier", "ece")


@dataclass(frozen=True)
class Reliability:
    """Non-empty bins of forecasts: mean forecast, observed frequency, share of the pairs."""

    predicted: np.ndarray
    observed: np.ndarray
    share: np.ndarray


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """BINS of equal width of (N, G) probabilities against 0/1 `truth`, by scikit-learn."""
    truth, probabilities = truth.ravel(), probabilities.ravel()
    observed, predicted = calibration_curve(truth, probabilities, n_bins=BINS, pos_label=1)
    # calibration_curve does not return the counts; its bins include their right edge
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], probabilities), minlength=BINS)
    return Reliability(predicted, observed, counts[counts > 0] / len(truth))


def calibration_error(curve: Reliability) -> float:
    """Expected calibration error: the mean gap of forecast and frequency, weighted by share."""
    return float(np.sum(curve.share * np.abs(curve.predicted - curve.observed)))


def measures(truth: np.ndarray, probabilities: np.ndarray) -> Mapping[str, float]:
    """NLL (nats per pair), Brier score and ECE of (N, G) probabilities."""
    flat, forecast = truth.ravel(), probabilities.ravel().astype(np.float64)
    return {
        "nll": float(log_loss(flat, forecast, labels=[0, 1])),
        "brier": float(brier_score_loss(flat, forecast, labels=[0, 1])),
        "ece": calibration_error(reliability(truth, probabilities)),
    }


def pooled(truth: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """One reliability curve over the cycles of (C, N, G) probabilities."""
    return reliability(np.broadcast_to(truth, probabilities.shape), probabilities)
