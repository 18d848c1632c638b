"""The figure behind the verdicts: which differences which cycles and movies can show."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from pmmo.reporting.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    Drawn,
    canvas,
    cycles,
    list_down,
    shorter,
    titled,
)

DESIGNS = ((ORANGE, "s"), (GREEN, "^"), (BLUE, "o"))  # 5, 10 and 30 cycles


def power(numbers: Mapping) -> Drawn:
    """The smallest difference that each design shows, beside the paper's difference."""
    facts = numbers["power"]
    shown = [c for c in facts["claims"] if c["unit"] == "F1" and (c["paper"] or 0) > 0]
    figure, axes = canvas(8.2, 2.3 + 0.3 * len(shown), lines=3)
    frame = pd.DataFrame(
        {"key": claim["key"], "paper": claim["paper"], "here": claim["smallest"]}
        | {f"mmimdb_{design['cycles']}": design["smallest"] for design in claim["published"]}
        for claim in shown
    )
    place = np.arange(len(shown))
    if shown:
        series = {f"here ({cycles(numbers)} cycles)": ("here", GREY, "X")}
        for design, (colour, marker) in zip(shown[0]["published"], DESIGNS, strict=True):
            count = design["cycles"]
            series[f"MM-IMDb, {count} cycles"] = (f"mmimdb_{count}", colour, marker)
        values = frame[[column for column, _, _ in series.values()]]
        axes.hlines(place, values.min(axis=1), values.max(axis=1), color=GREY, lw=1, alpha=0.6)
        for text, (column, colour, marker) in series.items():
            axes.plot(frame[column], place, marker, color=colour, ms=6, label=text)
        axes.plot(
            frame["paper"], place, "D", mec=INK, mfc="none", ms=7, mew=1.1, label="the paper's"
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(loc="outside lower center", ncols=5, fontsize=8, handletextpad=0.2)
    list_down(axes, [shorter(claim["statement"]) for claim in shown])
    axes.set_xlabel("F1 difference (logarithmic)")
    titled(
        figure,
        numbers,
        "Which differences can be shown",
        f"The smallest true difference that each design shows with probability {facts['power']:g}. "
        "Left of the diamond,\nthe design shows the paper's difference.",
    )
    return figure, frame
