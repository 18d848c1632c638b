"""Paired differences between runs: what each claim measures, on the movies and on resamplings.

Shapes: B bootstrap draws, C cycles, J differences, G genres. Score axes (4 + G): AVERAGES, then
genres.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pmmo.analysis.intervals import (
    DRAWS,
    LEVEL,
    WEIGHTED,
    Interval,
    Parts,
    Spread,
    f1_draws,
    f1_points,
    parts,
    resample,
    smallest,
    two_way,
    wins,
)
from pmmo.analysis.run_reader import Movies, Run
from pmmo.published import paper

BEST, BASELINE, UNREGULARISED = "pmmo-kl-l2", "gmu", "gmu-unregularised"  # Figure 2: D12
ONE_COLUMN = ("mlp-text", "mlp-image")
WEAK = 0.5  # section 4.2: genres with a GMU F1 of less than 0.5


@dataclass(frozen=True)
class Differences:
    """J paired differences in favour of a claim: points (C, J) and draws (B, C, J)."""

    points: np.ndarray
    draws: np.ndarray

    def at(self, places: Sequence[int] | np.ndarray | slice) -> "Differences":
        """Some of them."""
        return Differences(self.points[:, places], self.draws[:, :, places])

    def smallest(self) -> "Differences":
        """The one with the smallest mean over cycles, (C, 1) and (B, C, 1)."""
        return self.at([self.points.mean(axis=0).argmin()])

    def spread(self) -> Spread:
        """Their means over cycles with errors, (J,)."""
        return two_way(self.points, self.draws)

    def parts(self) -> Parts:
        """The variances of each by source of chance, (J,)."""
        return parts(self.points, self.draws)


@dataclass
class Evidence:
    """The runs, with a cache of their F-scores on the original and the resampled movies."""

    runs: Mapping[str, Run]
    movies: Movies
    level: float = LEVEL
    draws: int = DRAWS
    seed: int = 0
    margin: float = 0.0  # of F1: two rows closer than this are equivalent
    untrained: Collection[str] = ()  # rows that did not train (guard.py)
    rising: Collection[str] = ()  # rows that had not stopped improving (budget.py)
    part: Mapping[str, np.ndarray] = field(default_factory=dict)  # split -> movies; default: all
    weights: dict = field(default_factory=dict)  # split -> (B, N)
    scores: dict = field(default_factory=dict)  # (row, split) -> points, draws

    def f1(self, name: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Points (C, 4 + G) and draws (B, C, 4 + G) of one variant; all share the resamplings."""
        if (name, split) not in self.scores:
            truth, run = self.movies.truth(split), self.runs[name]
            predicted = run.probabilities(split) > run.threshold  # (C, N, G)
            if split in self.part:
                truth, predicted = truth[self.part[split]], predicted[:, self.part[split]]
            if split not in self.weights:
                self.weights[split] = resample(len(truth), self.draws, self.seed)
            self.scores[name, split] = (
                f1_points(truth, predicted),
                f1_draws(self.weights[split], truth, predicted),
            )
        return self.scores[name, split]

    def gap(self, better: str, worse: str, split: str = "test") -> Differences:
        """Paired differences of two variants in all 4 + G scores."""
        points, draws = self.f1(better, split)
        base_points, base_draws = self.f1(worse, split)
        return Differences(points - base_points, draws - base_draws)


def of_cycles(points: np.ndarray) -> Differences:
    """A quantity (C,) that does not depend on test movies."""
    return Differences(points[:, None], np.stack([points, points])[:, :, None])


def difference(evidence: Evidence, better: str, worse: str, split: str = "test") -> Differences:
    """Weighted F1 of one variant minus another's."""
    return evidence.gap(better, worse, split).at([WEIGHTED])


def every_average(evidence: Evidence) -> Differences:
    """The four F-score differences, PM+MO minus GMU."""
    return evidence.gap(BEST, BASELINE).at(slice(4))


def every_genre(evidence: Evidence) -> Differences:
    """The difference on each genre, PM+MO minus GMU."""
    return evidence.gap(BEST, BASELINE).at(slice(4, None))


def weak_genres(evidence: Evidence) -> Differences | None:
    """The differences on genres on which the GMU's mean F1 is below 0.5; None without any."""
    weak = evidence.f1(BASELINE)[0][:, 4:].mean(axis=0) < WEAK  # (G,)
    return every_genre(evidence).at(weak) if weak.any() else None


def fusion(evidence: Evidence) -> Differences:
    """The GMU minus a network on one column, for either column, by weighted F1."""
    return stacked([difference(evidence, BASELINE, row) for row in ONE_COLUMN])


def lowest(evidence: Evidence, name: str) -> Differences | None:
    """Each other variant of Table 2 minus `name`, by weighted F1; None where none was run."""
    others = [row for row in paper.TABLE2 if row != name and row in evidence.runs]
    gaps = [difference(evidence, row, name) for row in others]
    return stacked(gaps) if gaps else None


def stacked(gaps: Collection[Differences]) -> Differences:
    """The differences of all."""
    return Differences(
        np.concatenate([gap.points for gap in gaps], axis=1),
        np.concatenate([gap.draws for gap in gaps], axis=2),
    )


def best_epochs(run: Run) -> np.ndarray:
    """The selected epoch of each cycle, (C,)."""
    return np.array([cycle.best_epoch for cycle in run.cycles], dtype=float)


def earlier(evidence: Evidence) -> Differences:
    """The number of epochs by which the unregularised GMU peaks before the GMU."""
    runs = evidence.runs
    return of_cycles(best_epochs(runs[BASELINE]) - best_epochs(runs[UNREGULARISED]))


def train_scores(run: Run) -> np.ndarray:
    """Train weighted F1 at the selected epoch of each cycle, (C,)."""
    curves = run.curves.set_index(["cycle", "epoch"])["train_weighted"]
    return np.array([curves.loc[(cycle.cycle, cycle.best_epoch)] for cycle in run.cycles])


def overfits(evidence: Evidence) -> Differences | None:
    """The gap between train and dev weighted F1 of the unregularised GMU, minus the GMU's.

    None where the train score was not recorded.
    """
    train = train_scores(evidence.runs[UNREGULARISED]) - train_scores(evidence.runs[BASELINE])
    if np.isnan(train).any():
        return None
    dev = difference(evidence, UNREGULARISED, BASELINE, "dev")
    return Differences(train[:, None] - dev.points, train[:, None] - dev.draws)


def log_cost(evidence: Evidence) -> Differences:
    """Log seconds per epoch of PM+MO minus the GMU's."""
    ours, base = (
        np.log(np.array(evidence.runs[name].environment["seconds_per_epoch"], dtype=float))
        for name in (BEST, BASELINE)
    )
    return of_cycles(ours - base)


# What a claim says of its differences: (differences, level, seed) -> the number and its interval.


def least(found: Differences, level: float, seed: int) -> Interval:
    """The smallest of the differences."""
    return smallest(found.spread(), level)


def won(found: Differences, level: float, seed: int) -> Interval:
    """The number of differences above zero."""
    return wins(found.points, found.draws, level, seed)


def ratio(found: Differences, level: float, seed: int) -> Interval:
    """The ratio (geometric mean over cycles) whose logarithm is measured."""
    log = least(found, level, seed)
    with np.errstate(over="ignore"):
        return Interval(*(float(np.exp(end)) for end in (log.estimate, log.low, log.high)))
