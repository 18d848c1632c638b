"""The power behind each claim: what these cycles and movies can show, and what MM-IMDb's could.

Only claims about one difference, or about the smallest of several, have the variance that
`designs.py` carries to other numbers of cycles and movies; of several it is that of the smallest.
The count of genres won has not.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pmmo.analysis.claims import CLAIMS, Claim
from pmmo.analysis.comparisons import Differences, Evidence, least
from pmmo.analysis.designs import Prediction, pooled
from pmmo.analysis.intervals import Parts, deviation_factors
from pmmo.published.mmimdb import SPLITS

CYCLES = (5, 10, 30)  # that are predicted for MM-IMDb; the paper has five


def power(evidence: Evidence, share: float) -> dict[str, Any]:
    """The predictions for each claim with a power of `share`, and for the mean of Table 2's."""
    found = list(measured(evidence))
    claims = [
        {"key": claim.key, "statement": claim.statement, "unit": claim.unit}
        | predictions(evidence, share, gaps.parts(), claim.split, claim.paper)
        for claim, gaps in found
    ]
    inside = [(c, gaps) for c, gaps in found if c.where == "Table 2" and len(c.needs) == 2]
    if len(inside) > 1:
        mean = pooled([gaps.parts() for _, gaps in inside])
        median = float(np.median([claim.paper for claim, _ in inside]))
        statement = (
            f"Mean variance of the {len(inside)} comparisons inside Table 2, median difference"
        )
        stated = {"key": "inside-table-2", "statement": statement, "unit": "F1"}
        claims.append(stated | predictions(evidence, share, mean, "test", median))
    factors = deviation_factors(cycles_of(evidence), evidence.level)
    return {"power": share, "factors": factors, "claims": claims}


def measured(evidence: Evidence) -> Iterator[tuple[Claim, Differences]]:
    """The claims that have a prediction, with one difference each: (C, 1) and (B, C, 1)."""
    for claim in CLAIMS:
        rests_on = {*claim.needs, *claim.uses}
        if claim.timed or claim.summary is not least or rests_on & {*evidence.untrained}:
            continue
        found = claim.differences(evidence) if evidence.runs.keys() >= {*claim.needs} else None
        if found is not None and len(found.points) > 1:
            yield claim, found.smallest()


def predictions(
    evidence: Evidence, share: float, of: Parts, split: str, difference: float | None
) -> dict[str, Any]:
    """The shares of variance of a difference, and what which cycles and movies can show of it."""
    start, stop = SPLITS[split]
    cycles, movies = cycles_of(evidence), len(evidence.movies.truth(split))
    predicted = Prediction(pooled([of]), evidence.level, share)
    return {
        "paper": difference,
        "cycles": cycles,
        "movies": movies,
        "published_movies": stop - start,
        "shares": shares(predicted.parts, cycles),
        "half_width": predicted.half_width(cycles, 1),
        "smallest": predicted.smallest(cycles, 1),
        "published": [
            {
                "cycles": count,
                "half_width": predicted.half_width(count, (stop - start) / movies),
                "smallest": predicted.smallest(count, (stop - start) / movies),
            }
            for count in CYCLES
        ],
        "needed": needed(predicted, difference, cycles, movies, stop - start),
    }


def cycles_of(evidence: Evidence) -> int:
    """The cycles of every row."""
    return len(next(iter(evidence.runs.values())).cycles)


def shares(of: Parts, cycles: int) -> dict[str, float]:
    """Of the variance of the mean over cycles: from cycles, from movies, from both together."""
    variances = {"cycles": of.cycles / cycles, "movies": of.movies, "both": of.both / cycles}
    total = sum(variances.values())
    return {name: float(part / total) if total else np.nan for name, part in variances.items()}


def needed(
    predicted: Prediction, difference: float | None, cycles: int, movies: int, published: int
) -> dict[str, int | None] | None:
    """What would show the paper's difference: cycles or movies here, or cycles on MM-IMDb."""
    if difference is None:
        return None
    more = predicted.movies_needed(difference, cycles)
    return {
        "cycles": predicted.cycles_needed(difference, 1),
        "movies": None if more is None else int(np.ceil(more * movies)),
        "published_cycles": predicted.cycles_needed(difference, published / movies),
    }
