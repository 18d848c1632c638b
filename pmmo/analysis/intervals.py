"""Paired intervals that cover both sources of chance: training cycles and test movies.

A difference between two variants is measured in C cycles (same seed in both) on the same N movies.
Its mean over cycles varies for two reasons: other seeds would train other models, and other movies
would be tested. With the difference of cycle k written as

    d_k = true difference + a_k (cycle) + b (movies, shared by all cycles) + c_k (both)

the mean over C cycles has variance (var a + var c) / C + var b. The sample variance of the d_k
estimates var a + var c, with C - 1 degrees of freedom. A bootstrap over movies, with the same
resampled movies in every cycle and variant, gives b and c: its covariance between two cycles is
var b, and its variance within one is var b + var c. `Parts` has the three, and `two_way` adds them
and uses Student's t with Satterthwaite's degrees of freedom; docs/claims.md has the reasoning and
the coverage.

Shapes: B bootstrap draws, C cycles, N movies, G genres; `...` any further axes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from pmmo.core.names import AVERAGES

LEVEL = 0.95
DRAWS = 2000
WEIGHTED = AVERAGES.index("weighted")  # its place among the scores of `f1_draws`
EQUIVALENT, UNDECIDED = "equivalent", "undecided"


@dataclass(frozen=True)
class Interval:
    """An estimate with its lower and upper bound (infinite if unknown)."""

    estimate: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, float]:
        """The estimate under a name, then the bounds."""
        return {name: self.estimate, "low": self.low, "high": self.high}

    def verdict(
        self, above: str, below: str, threshold: float = 0.0, margin: float = 0.0, strict=True
    ) -> str:
        """The word for where the whole interval lies: above the threshold or below it.

        Otherwise equivalent where it lies within the margin around the threshold, or undecided.
        Above is also an interval that begins at the threshold where `strict` is false.
        """
        if self.low > threshold or (not strict and self.low == threshold):
            return above
        if self.high < threshold:
            return below
        # an interval without width is of rows that nothing could tell apart, such as scores of zero
        inside = threshold - margin < self.low < self.high < threshold + margin
        return EQUIVALENT if inside else UNDECIDED


@dataclass(frozen=True)
class Spread:
    """Estimates with their standard errors and degrees of freedom, each (...)."""

    mean: np.ndarray
    error: np.ndarray
    freedom: np.ndarray

    def bounds(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds (...) of two-sided intervals at `level`."""
        reach = stats.t.ppf(0.5 + level / 2, self.freedom) * self.error
        return self.mean - reach, self.mean + reach

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval of a single estimate."""
        low, high = self.bounds(level)
        return Interval(float(self.mean), float(low), float(high))


def resample(movies: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """The number of times each movie is drawn, (B, N) float32; every row sums to N."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, movies, (draws, movies)) + movies * np.arange(draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=draws * movies)
    return counts.reshape(draws, movies).astype(np.float32)  # integers, so sums are exact


def f1_draws(weights: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """F1 of weighted movies: (B, C, 4 + G), the averages in the order of AVERAGES, then genres.

    `weights` (B, N), `truth` (N, G) and `predicted` (C, N, G) 0/1. Equals scikit-learn with
    `zero_division=0` on the repeated movies, but needs only counts and one matrix product.
    """
    cycles, movies, genres = predicted.shape
    truth = truth.astype(np.float32)
    predicted = predicted.astype(np.float32)
    hits = predicted * truth  # (C, N, G)
    sizes = predicted.sum(-1) + truth.sum(-1)  # (C, N)
    samples = 2 * hits.sum(-1) / np.maximum(sizes, 1)  # (C, N)  Eq. 7
    columns = [truth, *hits, *predicted, samples.T]
    sums = (weights @ np.concatenate(columns, axis=1)).astype(np.float64)
    splits = np.cumsum([genres, cycles * genres, cycles * genres])
    positives, hits, positive_guesses, samples = np.split(sums, splits, axis=1)
    hits = hits.reshape(-1, cycles, genres)  # (B, C, G)
    sizes = positives[:, None] + positive_guesses.reshape(-1, cycles, genres)
    f1 = 2 * hits / np.maximum(sizes, 1)
    averages = {
        "micro": 2 * hits.sum(-1) / np.maximum(sizes.sum(-1), 1),
        "macro": f1.mean(-1),
        "weighted": (f1 * positives[:, None]).sum(-1) / np.maximum(positives.sum(-1), 1)[:, None],
        "samples": samples / movies,
    }
    return np.concatenate([np.stack([averages[a] for a in AVERAGES], axis=-1), f1], axis=-1)


def f1_points(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """`f1_draws` of the original movies, (C, 4 + G)."""
    return f1_draws(np.ones((1, len(truth)), np.float32), truth, predicted)[0]


@dataclass(frozen=True)
class Parts:
    """Estimated variances of the difference of one cycle, by source of chance, each (...).

    Estimates may be below zero, so that their means are right; `floored` is for use.
    """

    cycles: np.ndarray  # var a
    movies: np.ndarray  # var b
    both: np.ndarray  # var c

    def floored(self) -> "Parts":
        """The same without negative variances."""
        return Parts(*(np.maximum(part, 0) for part in (self.cycles, self.movies, self.both)))


def parts(cycles: np.ndarray, draws: np.ndarray) -> Parts:
    """The parts of differences (C, ...) of C >= 2 cycles with their `draws` (B, C, ...)."""
    count = len(cycles)
    of_mean = draws.mean(axis=1).var(axis=0, ddof=1)  # var b + var c / C
    within = draws.var(axis=0, ddof=1).mean(axis=0)  # var b + var c
    both = (within - of_mean) * count / (count - 1)  # var c
    return Parts(
        cycles=cycles.var(axis=0, ddof=1) - both,
        movies=of_mean - both / count,
        both=both,
    )


def two_way(cycles: np.ndarray, draws: np.ndarray) -> Spread:
    """The mean over cycles of `cycles` (C, ...), with its error from both cycles and movies.

    `draws` (B, C, ...) are the same statistics on B resamplings of the movies. A single cycle has
    no information about other seeds, so its error is infinite.
    """
    count = len(cycles)
    mean = cycles.mean(axis=0)
    if count == 1:
        return Spread(mean, np.full(mean.shape, np.inf), np.ones(mean.shape))
    # floored: of var c the bootstrap knows more than so few cycles do, so it is not undercut
    found = parts(cycles, draws).floored()
    variance = found.movies + (found.cycles + found.both) / count
    seeds = cycles.var(axis=0, ddof=1) / count  # the part with C - 1 degrees of freedom
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (count - 1) * np.where(seeds > 0, (variance / seeds) ** 2, np.inf)
    return Spread(mean, np.sqrt(variance), freedom)


def deviation_factors(cycles: int, level: float) -> np.ndarray:
    """By how much a standard deviation over cycles may be off: the bounds of true over observed.

    Of normal values; the sample variance times C - 1 over the true one is chi-squared.
    """
    tails = np.array([0.5 + level / 2, 0.5 - level / 2])
    return np.sqrt((cycles - 1) / stats.chi2.ppf(tails, cycles - 1))


def smallest(spread: Spread, level: float = LEVEL) -> Interval:
    """An interval for the smallest of J true values, from the J estimates in `spread` (J,).

    The lower bound is the smallest of the lower bounds. It needs no correction, because the bound
    of the smallest value covers it. The upper bound is the smallest of the upper bounds at level
    1 - (1-level)/J (Bonferroni), because all of them must hold.
    """
    low, _ = spread.bounds(level)
    _, high = spread.bounds(1 - (1 - level) / len(spread.mean))
    return Interval(float(spread.mean.min()), float(low.min()), float(high.min()))


def wins(cycles: np.ndarray, draws: np.ndarray, level: float = LEVEL, seed: int = 0) -> Interval:
    """The number of G differences whose mean over cycles is above zero, with its interval.

    `cycles` (C, G), `draws` (B, C, G). The target is the expected count over repetitions of the
    experiment (other seeds, other movies), of which the observed count is an unbiased estimate.
    Its standard deviation comes from drawing repetitions around the estimates: resampled
    movies, plus the residuals of the cycles with normal multipliers, both joint over genres.
    """
    count, genres = cycles.shape
    won = int((cycles.mean(axis=0) > 0).sum())
    if count == 1:
        return Interval(won, 0, genres)
    mean = cycles.mean(axis=0)  # (G,)
    by_movies = draws.mean(axis=1) - draws.mean(axis=(0, 1))  # (B, G)
    multipliers = np.random.default_rng(seed).standard_normal((len(draws), count))
    by_cycles = multipliers @ (cycles - mean) / np.sqrt(count * (count - 1))
    # twice the variance, because the estimates contain the same noise again; without it, genres
    # without a clear winner would look decided
    repeated = mean + np.sqrt(2) * (by_movies + by_cycles)
    error = (repeated > 0).sum(axis=1).std(ddof=1)
    reach = stats.t.ppf(0.5 + level / 2, count - 1) * error
    return Interval(won, max(0.0, won - reach), min(float(genres), won + reach))
