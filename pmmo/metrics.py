"""F-scores of the paper's section 4, all from scikit-learn with `zero_division=0` (D30)."""

import numpy as np
from sklearn.metrics import f1_score

AVERAGES = ("micro", "macro", "weighted", "samples")


def f1_scores(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Micro, macro, weighted and samples F1 (Eq. 7) of 0/1 arrays (movies, genres)."""
    return {
        average: float(f1_score(y_true, y_pred, average=average, zero_division=0))
        for average in AVERAGES
    }


def f1_per_genre(y_true: np.ndarray, y_pred: np.ndarray) -> list[float]:
    """F1 of each genre (Figure 3, D29), in column order, of 0/1 arrays (movies, genres)."""
    return f1_score(y_true, y_pred, average=None, zero_division=0).tolist()
