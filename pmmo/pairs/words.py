"""Two runs side by side, for the terminal and as CSV: the facts of `differences.compare`."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import pandas as pd

from pmmo.core.text import name
from pmmo.reporting.formats import cell, interval, number

DIGITS = 4


def in_words(facts: Mapping[str, Any]) -> str:
    """A table of the four F-scores, what differs in the settings, and how to read it."""
    first, second = name(facts["first"]), name(facts["second"])
    level = f"{facts['level']:.0%} interval"
    header = ("F1 on test", first, second, "difference", level, second)
    lines = [header]
    for score, entry in facts["scores"].items():
        lines.append(
            (
                score,
                number(entry["first_mean"], DIGITS),
                number(entry["second_mean"], DIGITS),
                number(entry["difference"], DIGITS, sign=True),
                interval(entry, DIGITS, sign=True) if isfinite(entry["low"]) else "unknown",
                entry["verdict"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([f"{second} minus {first}", "", *table, "", *notes(facts)])


def notes(facts: Mapping[str, Any]) -> list[str]:
    """How the difference was measured, and the settings in which the two differ."""
    seeds = facts["seeds"]
    count = f"{len(seeds)} cycles" if len(seeds) > 1 else "one cycle, which has no interval"
    differing = [f"{key}: {old} -> {new}" for key, (old, new) in facts["settings"].items()]
    return [
        f"Paired by movie and by seed: {facts['movies']:,} test movies, {count}.",
        f"Settings: {'; '.join(differing) if differing else 'the same'}.",
    ]


def frame(facts: Mapping[str, Any]) -> pd.DataFrame:
    """One line per F-score, for a CSV file; unknown bounds are empty."""
    about = {
        "first": cell(facts["first"]),
        "second": cell(facts["second"]),
        "movies": facts["movies"],
        "cycles": len(facts["seeds"]),
        "level": facts["level"],
    }
    lines = [{"score": f"f1_{score}"} | entry | about for score, entry in facts["scores"].items()]
    return pd.DataFrame(lines).replace([float("inf"), -float("inf")], float("nan"))
