"""What a number of cycles and movies can show: the parts of an interval, carried to other designs.

An interval comes from the variance (var a + var c) / C + var b of a difference (`intervals.py`).
With M times as many movies of the same kind, var b and var c become 1 / M of what they are, and
var a stays. So the parts that finished runs show predict, for any number of cycles and movies, the
half-width of the interval and the smallest true difference that it shows with a given power: the
probability that the whole interval lies on the right side of zero. docs/power.md explains it.

M, a number of movies, is everywhere a multiple of those that the parts were measured on.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from pmmo.analysis.intervals import LEVEL, Parts

POWER = 0.8
MOST = 100_000  # cycles, or hundredths of M, that are tried
NORMAL = 10_000  # degrees of freedom from which Student's t is taken for the normal distribution


@dataclass(frozen=True)
class Prediction:
    """The parts of one difference, with the level of its interval and the power to show it."""

    parts: Parts
    level: float = LEVEL
    power: float = POWER

    def error(self, cycles: int, movies: float) -> tuple[float, float]:
        """Standard error of the mean over cycles, and its degrees of freedom (Satterthwaite's)."""
        seeds = float(self.parts.cycles + self.parts.both / movies) / cycles
        variance = float(self.parts.movies) / movies + seeds
        freedom = (cycles - 1) * (variance / seeds) ** 2 if seeds > 0 else np.inf
        return float(np.sqrt(variance)), freedom

    def half_width(self, cycles: int, movies: float) -> float:
        """Half the width of the interval."""
        error, freedom = self.error(cycles, movies)
        return float(stats.t.ppf(0.5 + self.level / 2, freedom)) * error

    def smallest(self, cycles: int, movies: float) -> float:
        """The true difference whose interval lies above zero with probability `power`."""
        error, freedom = self.error(cycles, movies)
        if freedom > NORMAL:
            return float(stats.norm.ppf(0.5 + self.level / 2) + stats.norm.ppf(self.power)) * error
        bound = float(stats.t.ppf(0.5 + self.level / 2, freedom))
        # with a true difference of x errors, difference / error is noncentral t around x
        lacking = lambda x: stats.nct.sf(bound, freedom, x) - self.power  # noqa: E731
        return float(brentq(lacking, 0, 3 * bound + 10, xtol=1e-6)) * error

    def cycles_needed(self, difference: float, movies: float) -> int | None:
        """Cycles that show `difference`; None where no number does, for want of movies."""
        return first(lambda cycles: self.smallest(cycles, movies) <= difference, 2)

    def movies_needed(self, difference: float, cycles: int) -> float | None:
        """Movies that show `difference`; None where no number does, for want of cycles."""
        found = first(lambda percent: self.smallest(cycles, percent / 100) <= difference, 1)
        return None if found is None else found / 100


def pooled(several: Sequence[Parts]) -> Parts:
    """The mean of the estimates, as single numbers and none of them negative."""
    return Parts(
        np.mean([of.cycles for of in several]),
        np.mean([of.movies for of in several]),
        np.mean([of.both for of in several]),
    ).floored()


def first(enough: Callable[[int], bool], start: int) -> int | None:
    """The smallest whole number from `start` that is enough; None where MOST is not."""
    numbers = range(start, MOST + 1)
    place = bisect_left(numbers, True, key=enough)
    return numbers[place] if place < len(numbers) else None
