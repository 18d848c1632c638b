"""Two runs on the same movies with the same seeds: the paired differences of their F-scores.

The interval is that of the claims (`intervals.two_way`, docs/claims.md).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmmo.analysis.intervals import Interval, f1_draws, f1_points, resample, two_way
from pmmo.analysis.run_reader import Movies, Run
from pmmo.core.errors import PmmoError
from pmmo.core.names import AVERAGES

HIGHER, LOWER, SAME = "higher", "lower", "the same"


@dataclass(frozen=True)
class Side:
    """A run, the movies that it was tested on, and what to call it."""

    name: str
    run: Run
    movies: Movies


def obstacle(first: Side, second: Side) -> str | None:
    """Why two runs cannot be paired; None if they can."""
    ours, theirs = first.movies, second.movies
    if ours.genres != theirs.genres:
        return f"{first.name} has other genres than {second.name}"
    sizes = [len(movies.truth("test")) for movies in (ours, theirs)]
    if sizes[0] != sizes[1]:
        return (
            f"{first.name} was tested on {sizes[0]} movies, {second.name} on {sizes[1]}, "
            "and only the same movies can be paired"
        )
    if (ours.ids, ours.splits) != (theirs.ids, theirs.splits) or (
        ours.labels != theirs.labels
    ).any():
        return f"{first.name} has other movies, labels or splits than {second.name}"
    seeds = [[cycle.seed for cycle in side.run.cycles] for side in (first, second)]
    if seeds[0] != seeds[1]:
        return (
            f"{first.name} has the seeds {seeds[0]}, {second.name} {seeds[1]}, and differences are "
            "paired by seed"
        )
    return None


def compare(
    first: Side, second: Side, level: float, draws: int, seed: int, margin: float
) -> dict[str, Any]:
    """Second minus first: each F-score on test with its difference, interval and verdict.

    `level`, `draws` and `seed` are those of `intervals` in params.yaml, `margin` is
    `verdicts.equivalent`. Raises PmmoError if the two cannot be paired, or if predictions do not
    give the scores of their run.
    """
    if reason := obstacle(first, second):
        raise PmmoError(f"{first.name} and {second.name} cannot be compared: {reason}.")
    truth = first.movies.truth("test")
    weights = resample(len(truth), draws, seed)  # (B, N), the same for both
    points, resampled = [], []
    for side in (first, second):
        predicted = side.run.probabilities("test") > side.run.threshold  # (C, N, G)
        check_predictions(side, truth, predicted)
        points.append(f1_points(truth, predicted)[:, : len(AVERAGES)])  # (C, 4)
        resampled.append(f1_draws(weights, truth, predicted)[:, :, : len(AVERAGES)])  # (B, C, 4)
    spread = two_way(points[1] - points[0], resampled[1] - resampled[0])
    means = [found.mean(axis=0) for found in points]
    scores = {}
    for place, average in enumerate(AVERAGES):
        low, high = (float(bound[place]) for bound in spread.bounds(level))
        interval = Interval(float(spread.mean[place]), low, high)
        scores[average] = {
            "first_mean": float(means[0][place]),
            "second_mean": float(means[1][place]),
            **interval.named("difference"),
            "verdict": verdict(interval, margin),
        }
    return {
        "first": first.name,
        "second": second.name,
        "movies": len(truth),
        "seeds": [cycle.seed for cycle in first.run.cycles],
        "level": level,
        "settings": differing_settings(first.run, second.run),
        "scores": scores,
    }


def verdict(interval: Interval, margin: float) -> str:
    """Of the second against the first; equivalent where they differ by less than the margin."""
    if interval.low == interval.high == 0:
        return SAME
    return interval.verdict(HIGHER, LOWER, margin=margin)


def check_predictions(side: Side, truth: np.ndarray, predicted: np.ndarray) -> None:
    """PmmoError unless predictions (C, N, G) are of these movies and give the stored scores."""
    stored = [[cycle.test[average] for average in AVERAGES] for cycle in side.run.cycles]
    fits = predicted.shape[1:] == truth.shape and np.allclose(
        f1_points(truth, predicted)[:, : len(AVERAGES)], stored, atol=1e-5
    )
    if not fits:
        raise PmmoError(
            f"{side.name}: its predictions do not give its scores on these movies; data or "
            "results are older than the other. Run dvc repro there."
        )


def differing_settings(first: Run, second: Run) -> dict[str, tuple[Any, Any]]:
    """Setting -> its value in both runs, where the two differ, of those that both systems have."""
    pairs = {key: (value, second.settings.get(key)) for key, value in first.settings.items()}
    return {
        key: pair
        for key, pair in pairs.items()
        if key not in ("name", "label", "epoch_predictions")
        and pair[0] != pair[1]
        and None not in pair
    }
