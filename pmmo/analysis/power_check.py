"""A check of the predictions of `power.py`: half-widths predicted from a part of what was run.

The movies are cut into equal pieces. Each piece shows the parts of the variance as if there were no
other movies, and their mean predicts the half-width of the interval on all; the same with fewer
cycles. One estimate from few cycles is noisy (`intervals.deviation_factors`), so the mean is over
pieces, several cuts and pairs of rows; the range of what single pieces and pairs predict stands
beside it.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from pmmo.analysis.comparisons import Differences, Evidence, difference
from pmmo.analysis.designs import Prediction, pooled
from pmmo.analysis.intervals import Parts
from pmmo.published import paper

PIECES = (4, 2)  # of the movies
CUTS = 4  # different ones
DRAWS = 400  # enough for a mean
RANGE = (0.05, 0.95)  # of the ratios of single predictions


def check(evidence: Evidence) -> list[dict[str, Any]]:
    """Half-widths from fewer movies or cycles beside those of all, for weighted F1 on test.

    Of every pair of rows of Tables 1 and 2. Empty where there is too little to cut.
    """
    pairs = list(combinations([name for name in paper.ROWS if name in evidence.runs], 2))
    movies = len(evidence.movies.truth("test"))
    whole = [difference(evidence, *pair) for pair in pairs]
    if not pairs or movies < 4 * max(PIECES) or len(whole[0].points) < 2:
        return []
    cycles, level = len(whole[0].points), evidence.level
    lines = []
    for count in PIECES:
        found = from_movies(evidence, pairs, movies, count)
        lines.append(
            compared(whole, found, level, count) | {"movies": movies // count} | {"cycles": cycles}
        )
    few = (cycles + 1) // 2
    if few > 1:
        found = [from_cycles(gaps, few) for gaps in whole]
        lines.append(compared(whole, found, level, 1) | {"movies": movies, "cycles": few})
    return lines


def from_movies(
    evidence: Evidence, pairs: Sequence[tuple[str, str]], movies: int, count: int
) -> list[list[Parts]]:
    """For each pair the parts that each piece of `count` shows, over all cuts."""
    found: list[list[Parts]] = [[] for _ in pairs]
    for cut in range(CUTS):
        order = np.random.default_rng([evidence.seed, cut]).permutation(movies)
        for piece in np.array_split(order, count):
            alone = replace(
                evidence, draws=DRAWS, part={"test": np.sort(piece)}, weights={}, scores={}
            )
            for estimates, pair in zip(found, pairs, strict=True):
                estimates.append(difference(alone, *pair).parts())
    return found


def from_cycles(gaps: Differences, few: int) -> list[Parts]:
    """The parts that `few` cycles in a row show, from every start."""
    cycles = len(gaps.points)
    rows = [(np.arange(few) + start) % cycles for start in range(cycles)]
    return [Differences(gaps.points[row], gaps.draws[:, row]).parts() for row in rows]


def compared(
    whole: Sequence[Differences], found: Sequence[Sequence[Parts]], level: float, more: int
) -> dict[str, Any]:
    """The half-width predicted for `more` times the movies and observed, and single ratios."""
    cycles = len(whole[0].points)

    def width(several: Sequence[Parts], movies: int) -> float:
        return Prediction(pooled(several), level).half_width(cycles, movies)

    ratios: list[float] = []
    for gaps, estimates in zip(whole, found, strict=True):
        if observed := width([gaps.parts()], 1):  # equal rows have no width
            ratios += [width([one], more) / observed for one in estimates]
    low, high = np.quantile(ratios, RANGE) if ratios else (np.nan, np.nan)
    return {
        "pairs": len(whole),
        "predicted": width([one for estimates in found for one in estimates], more),
        "observed": width([gaps.parts() for gaps in whole], 1),
        "lowest": low,
        "highest": high,
    }
