"""Paired differences between runs, and the interval of each measure that a claim needs.

Shapes: B bootstrap draws, C cycles, G genres. Score axes (4 + G): AVERAGES, then genres.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from pmmo.analysis.intervals import (
    DRAWS,
    LEVEL,
    Interval,
    Spread,
    f1_draws,
    f1_points,
    resample,
    smallest,
    two_way,
    wins,
)
from pmmo.analysis.run_reader import Movies, Run
from pmmo.core.names import AVERAGES
from pmmo.published import paper

WEIGHTED = AVERAGES.index("weighted")
BEST, BASELINE, UNREGULARISED = "pmmo-kl-l2", "gmu", "gmu-unregularised"  # Figure 2: D12
ONE_COLUMN = ("mlp-text", "mlp-image")
WEAK = 0.5  # section 4.2: genres with a GMU F1 of less than 0.5
UNKNOWN = Interval(np.nan, -np.inf, np.inf)


@dataclass
class Evidence:
    """The runs, with a cache of their F-scores on the original and the resampled movies."""

    runs: Mapping[str, Run]
    movies: Movies
    level: float = LEVEL
    draws: int = DRAWS
    seed: int = 0
    untrained: Collection[str] = ()  # rows that did not train (guard.py)
    weights: dict = field(default_factory=dict)  # split -> (B, N)
    scores: dict = field(default_factory=dict)  # (row, split) -> points, draws

    def f1(self, name: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Points (C, 4 + G) and draws (B, C, 4 + G) of one variant; all share the resamplings."""
        if (name, split) not in self.scores:
            truth, run = self.movies.truth(split), self.runs[name]
            if split not in self.weights:
                self.weights[split] = resample(len(truth), self.draws, self.seed)
            predicted = run.probabilities(split) > run.threshold
            self.scores[name, split] = (
                f1_points(truth, predicted),
                f1_draws(self.weights[split], truth, predicted),
            )
        return self.scores[name, split]

    def gap(self, better: str, worse: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Paired differences of two variants: points (C, 4 + G) and draws (B, C, 4 + G)."""
        points, draws = self.f1(better, split)
        base_points, base_draws = self.f1(worse, split)
        return points - base_points, draws - base_draws


def over_cycles(points: np.ndarray) -> Spread:
    """The spread of a quantity (C, ...) that does not depend on test movies."""
    return two_way(points, np.stack([points, points]))


def difference(evidence: Evidence, better: str, worse: str, split: str) -> Interval:
    """Weighted F1 of one variant minus another's."""
    points, draws = evidence.gap(better, worse, split)
    return two_way(points[:, WEIGHTED], draws[:, :, WEIGHTED]).interval(evidence.level)


def every_average(evidence: Evidence) -> Interval:
    """The smallest of the four F-score differences, PM+MO minus GMU."""
    points, draws = evidence.gap(BEST, BASELINE)
    return smallest(two_way(points[:, :4], draws[:, :, :4]), evidence.level)


def genres_won(evidence: Evidence) -> Interval:
    """The number of genres on which PM+MO has a higher F1."""
    points, draws = evidence.gap(BEST, BASELINE)
    return wins(points[:, 4:], draws[:, :, 4:], evidence.level, evidence.seed)


def weak_genres(evidence: Evidence) -> Interval:
    """The smallest difference over genres on which the GMU's mean F1 is below 0.5."""
    weak = evidence.f1(BASELINE)[0][:, 4:].mean(axis=0) < WEAK  # (G,)
    if not weak.any():
        return UNKNOWN
    points, draws = evidence.gap(BEST, BASELINE)
    return smallest(two_way(points[:, 4:][:, weak], draws[:, :, 4:][:, :, weak]), evidence.level)


def fusion(evidence: Evidence) -> Interval:
    """The smallest lead of the GMU over a network on one column, by weighted F1."""
    gaps = [evidence.gap(BASELINE, row) for row in ONE_COLUMN]
    points = np.stack([points[:, WEIGHTED] for points, _ in gaps], axis=1)  # (C, rows)
    draws = np.stack([draws[:, :, WEIGHTED] for _, draws in gaps], axis=2)  # (B, C, rows)
    return smallest(two_way(points, draws), evidence.level)


def lowest(evidence: Evidence, name: str) -> Interval:
    """The smallest difference of another variant of Table 2 minus `name`, by weighted F1."""
    others = [row for row in paper.TABLE2 if row != name and row in evidence.runs]
    if not others:
        return UNKNOWN
    gaps = [evidence.gap(row, name) for row in others]
    points = np.stack([points[:, WEIGHTED] for points, _ in gaps], axis=1)  # (C, rows)
    draws = np.stack([draws[:, :, WEIGHTED] for _, draws in gaps], axis=2)  # (B, C, rows)
    return smallest(two_way(points, draws), evidence.level)


def best_epochs(run: Run) -> np.ndarray:
    """The selected epoch of each cycle, (C,)."""
    return np.array([cycle.best_epoch for cycle in run.cycles], dtype=float)


def earlier(evidence: Evidence) -> Interval:
    """The number of epochs by which the unregularised GMU peaks before the GMU."""
    runs = evidence.runs
    return over_cycles(best_epochs(runs[BASELINE]) - best_epochs(runs[UNREGULARISED])).interval(
        evidence.level
    )


def train_scores(run: Run) -> np.ndarray:
    """Train weighted F1 at the selected epoch of each cycle, (C,)."""
    curves = run.curves.set_index(["cycle", "epoch"])["train_weighted"]
    return np.array([curves.loc[(cycle.cycle, cycle.best_epoch)] for cycle in run.cycles])


def overfits(evidence: Evidence) -> Interval:
    """The gap between train and dev weighted F1 of the unregularised GMU, minus the GMU's."""
    train = train_scores(evidence.runs[UNREGULARISED]) - train_scores(evidence.runs[BASELINE])
    if np.isnan(train).any():
        return UNKNOWN
    points, draws = evidence.gap(UNREGULARISED, BASELINE, "dev")
    return two_way(train - points[:, WEIGHTED], train - draws[:, :, WEIGHTED]).interval(
        evidence.level
    )


def cost_ratio(evidence: Evidence) -> Interval:
    """Seconds per epoch of PM+MO divided by the GMU's (geometric mean over cycles)."""
    ours, base = (
        np.log(np.array(evidence.runs[name].environment["seconds_per_epoch"], dtype=float))
        for name in (BEST, BASELINE)
    )
    interval = over_cycles(ours - base).interval(evidence.level)
    with np.errstate(over="ignore"):
        return Interval(
            float(np.exp(interval.estimate)),
            float(np.exp(interval.low)),
            float(np.exp(interval.high)),
        )
