"""F-scores of the paper's section 4, from scikit-learn with `zero_division=0` (D30).

Training uses its own counts (`evaluation.scores`); `aggregation.check_scores` raises if they differ
from these.
"""

from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from pmmo.core.names import AVERAGES


def f1_scores(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Micro, macro, weighted and samples F1 (Eq. 7) of 0/1 arrays (movies, genres)."""
    return {average: float(_f1(y_true, y_pred, average)) for average in AVERAGES}


def f1_per_genre(y_true: np.ndarray, y_pred: np.ndarray) -> list[float]:
    """F1 of each genre (Figure 3, D29), in column order, of 0/1 arrays (movies, genres)."""
    return _f1(y_true, y_pred, None).tolist()


def _f1(y_true: np.ndarray, y_pred: np.ndarray, average: str | None) -> Any:
    genres = range(y_true.shape[1])
    # a column that is not scored: scikit-learn takes a single one for something else
    y_true, y_pred = (np.pad(y, ((0, 0), (0, 1))) for y in (y_true, y_pred))
    return f1_score(y_true, y_pred, labels=genres, average=average, zero_division=0)
