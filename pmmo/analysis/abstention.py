"""Abstention: what it buys to leave the most unsure movies to a person.

The risk of a movie is 1 - F1 between its decided and its true genres (Eq. 7), so the mean risk of
all movies is 1 - samples F1. At coverage c the share c of the movies, the least unsure ones, is
answered; the risk is the mean over them. Everything comes from the stored predictions.
Shapes: C cycles, N movies, G genres, K coverages, B bootstrap draws.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pmmo.analysis.aggregation import INPUTS, mean_sd
from pmmo.analysis.intervals import resample, two_way
from pmmo.analysis.post_hoc import ROWS
from pmmo.analysis.run_reader import Movies, Run

COVERAGES = np.arange(5, 101, 5) / 100  # (K,)
ANSWERED = 0.8  # the coverage at which the gain and the missing inputs are reported


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """(..., N): mean over genres of the binary entropy (nats) of (..., N, G) probabilities."""
    p = probabilities.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.nan_to_num(p * np.log(p)) + np.nan_to_num((1 - p) * np.log1p(-p))
    return -terms.mean(axis=-1)


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """(..., N): 1 - the probability of the likeliest genre."""
    return 1 - probabilities.max(axis=-1).astype(np.float64)


def disagreement(probabilities: np.ndarray) -> np.ndarray:
    """(N,): mutual information (nats) of genre and model, of C models' (C, N, G) probabilities.

    The entropy of the mean probability minus the mean entropy: what the models do not agree on.
    """
    return entropy(probabilities.mean(axis=0)) - entropy(probabilities).mean(axis=0)


MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "entropy": entropy,
    "likeliest genre": least_confidence,
}


def risks(truth: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """(C, N): 1 - F1 of each movie, of 0/1 truth (N, G) and decisions (C, N, G); 0/0 is F1 0."""
    sizes = decided.sum(axis=-1) + truth.sum(axis=-1)
    return 1 - 2 * (decided & (truth > 0)).sum(axis=-1) / np.maximum(sizes, 1)


def number_at(coverage: ArrayLike, movies: int) -> np.ndarray:
    """How many of the movies are answered; rounded first, because 0.55 * 100 is above 55."""
    return np.ceil(np.round(np.multiply(coverage, movies), 6)).astype(int)


def answered(unsure: np.ndarray, coverage: float) -> np.ndarray:
    """(C, N) bool: the least unsure movies of each cycle; among equals the earlier ones."""
    places = np.argsort(np.argsort(unsure, axis=-1, kind="stable"), axis=-1)
    return places < number_at(coverage, unsure.shape[-1])


def running_risk(unsure: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """(C, N): the risk of the 1, 2, ... N least unsure movies."""
    order = np.argsort(unsure, axis=-1, kind="stable")
    sums = np.take_along_axis(risk, order, axis=-1).cumsum(axis=-1)
    return sums / np.arange(1, risk.shape[-1] + 1)


def curve(unsure: np.ndarray, risk: np.ndarray) -> dict[str, Any]:
    """Risk at COVERAGES and the area under the whole curve, mean and deviation over cycles."""
    running = running_risk(unsure, risk)
    last = number_at(COVERAGES, risk.shape[-1]) - 1  # (K,)
    return {"risk": mean_sd(running[:, last]), "area": mean_sd(running.mean(axis=-1))}


def gain(unsure: np.ndarray, risk: np.ndarray, weights: np.ndarray, level: float) -> dict:
    """Risk of all movies minus that of the answered ones, with the interval of `two_way`.

    `weights` (B, N). A resampling keeps who is answered: the interval is for this limit.
    """
    kept = answered(unsure, ANSWERED)
    cycles = risk.mean(axis=-1) - np.array([r[k].mean() for r, k in zip(risk, kept, strict=True)])
    counts = np.maximum(weights @ kept.T.astype(np.float32), 1)  # (B, C)
    draws = weights @ risk.T / weights.shape[1] - weights @ (risk * kept).T / counts
    return two_way(cycles, draws).interval(level).named("gain")


def options(run: Run) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Each way to order the movies: predictor, measure, probabilities (C, N, G), unsureness."""
    single = run.probabilities("test")
    ensemble = single.mean(axis=0, keepdims=True)
    for measure, unsure in MEASURES.items():
        yield "one cycle", measure, single, unsure(single)
    if len(single) > 1:
        name = f"ensemble of {len(single)}"
        for measure, unsure in MEASURES.items():
            yield name, measure, ensemble, unsure(ensemble)
        yield name, "disagreement of cycles", ensemble, disagreement(single)[None]


def without_an_input(run: Run, truth: np.ndarray) -> dict[str, Any]:
    """Test movies with one input at its training mean, under a limit that was set on dev with both.

    The limit answers the share ANSWERED of dev, by the likeliest genre.
    """
    dev = least_confidence(run.probabilities("dev"))
    limits = np.quantile(dev, ANSWERED, axis=-1, keepdims=True)  # (C, 1)
    found = {}
    for kind, key in INPUTS.items():
        probabilities = run.predictions(key)
        if probabilities is None:
            continue
        risk = risks(truth, probabilities > run.threshold)
        unsure = least_confidence(probabilities)
        kept = unsure <= limits
        means = [r[k].mean() if k.any() else np.nan for r, k in zip(risk, kept, strict=True)]
        found[kind] = curve(unsure, risk) | {
            "entropy": mean_sd(entropy(probabilities).mean(axis=-1)),
            "all": mean_sd(risk.mean(axis=-1)),
            "answered": mean_sd(kept.mean(axis=-1)),
            "answered_risk": mean_sd(means),
        }
    return found


def of_run(run: Run, truth: np.ndarray, weights: np.ndarray, level: float) -> dict[str, Any]:
    """Every way to order the test movies of one variant, and the missing inputs."""
    found = []
    for predictor, measure, probabilities, unsure in options(run):
        risk = risks(truth, probabilities > run.threshold)
        found.append(
            {"predictor": predictor, "measure": measure}
            | curve(unsure, risk)
            | gain(unsure, risk, weights, level)
        )
    return {"orders": found, "inputs": without_an_input(run, truth)}


def abstention(
    runs: Mapping[str, Run], movies: Movies, level: float, draws: int, seed: int
) -> dict[str, Any]:
    """Risk against coverage of the three systems that the paper's text compares."""
    truth = movies.truth("test")
    weights = resample(len(truth), draws, seed)
    variants = {n: of_run(runs[n], truth, weights, level) for n in ROWS if n in runs}
    return {"coverages": COVERAGES, "answered": ANSWERED, "variants": variants}
