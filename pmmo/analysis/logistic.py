"""Logistic regression on text, image or both: what is plainly reachable on a set of movies.

One-vs-rest, standardised, with scikit-learn's objective, but every genre in one matrix product,
which takes minutes less at 25,959 movies (a test compares the scores). It starts at zero and draws
nothing, so that it has no cycles and no spread.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from scipy.optimize import minimize
from scipy.special import expit

from pmmo.analysis.intervals import f1_points
from pmmo.analysis.run_reader import Movies
from pmmo.core.errors import PmmoError
from pmmo.core.names import AVERAGES, SPLITS

C = 0.01  # scikit-learn's; its default, 1, scores the same on few movies and overfits many
STEPS = 200  # of L-BFGS, at most; 50 leave the F1 on images up to 0.007 off
THRESHOLD = 0.0  # on the logit: probability 0.5
COLUMNS = {"text": ("text",), "image": ("image",), "both": ("text", "image")}

Scores = dict[str, dict[str, float]]  # split -> average -> F1


def regressions(folder: Path, movies: Movies) -> dict[str, Scores]:
    """`logistic_scores` of text, of image and of both."""
    return {inputs: logistic_scores(folder, movies, inputs) for inputs in COLUMNS}


def logistic_scores(folder: Path, movies: Movies, inputs: str = "both") -> Scores:
    """F1 on each split of a regression fitted on the training movies of `folder`."""
    columns = {split: features(folder, movies.splits[split], inputs) for split in SPLITS}
    train = columns["train"]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    for rows in columns.values():
        rows -= mean
        rows /= deviation
    weights = fit(train, movies.truth("train"))
    found = {}
    for split, rows in columns.items():
        guesses = rows @ weights[:-1] + weights[-1] > THRESHOLD
        points = f1_points(movies.truth(split), guesses[None])[0]
        found[split] = dict(zip(AVERAGES, points[: len(AVERAGES)].tolist(), strict=True))
    return found


def features(folder: Path, rows: tuple[int, int], inputs: str) -> np.ndarray:
    """Text, image or both of some rows, (N, D) float32."""
    try:
        parts = []
        for key in COLUMNS[inputs]:
            with safe_open(folder / f"{key}.safetensors", framework="numpy") as file:
                parts.append(file.get_slice(key)[slice(*rows)])
        return np.concatenate(parts, axis=1, dtype=np.float32)
    except (OSError, SafetensorError) as error:
        raise PmmoError(f"{folder}: no readable movies ({error}). Run dvc repro extract.") from None


def fit(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights and, in the last row, intercepts (D + 1, G) for inputs (N, D), 0/1 labels (N, G).

    They minimise the summed log loss plus the squared weights over 2 C.
    """
    shape = (inputs.shape[1] + 1, labels.shape[1])
    labels = labels.astype(np.float32)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape).astype(np.float32)
        logits = inputs @ weights[:-1] + weights[-1]  # (N, G)
        log_loss = np.sum(np.logaddexp(0, logits) - labels * logits, dtype=np.float64)
        error = expit(logits) - labels
        gradient = np.vstack([inputs.T @ error + weights[:-1] / C, error.sum(axis=0)])
        penalty = 0.5 / C * np.sum(weights[:-1] ** 2, dtype=np.float64)
        return (log_loss + penalty) / len(inputs), gradient.ravel() / float(len(inputs))

    found = minimize(
        loss,
        np.zeros(np.prod(shape)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "ftol": 1e-9, "gtol": 1e-7},
    )
    return found.x.reshape(shape).astype(np.float32)
