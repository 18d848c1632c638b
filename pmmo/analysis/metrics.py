"""F-scores of the paper's section 4, from scikit-learn with `zero_division=0` (D30).

Training uses its own counts (`evaluation.scores`); `aggregation.check_scores` raises if they differ
from these.
"""

import numpy as np

from pmmo.core.names import AVERAGES


def f1_scores(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Micro, macro, weighted and samples F1 (Eq. 7) of 0/1 arrays (movies, genres)."""
    from sklearn.metrics import f1_score  # the import takes a second, which training avoids

    return {
        average: float(f1_score(y_true, y_pred, average=average, zero_division=0))
        for average in AVERAGES
    }


def f1_per_genre(y_true: np.ndarray, y_pred: np.ndarray) -> list[float]:
    """F1 of each genre (Figure 3, D29), in column order, of 0/1 arrays (movies, genres)."""
    from sklearn.metrics import f1_score

    return f1_score(y_true, y_pred, average=None, zero_division=0).tolist()
