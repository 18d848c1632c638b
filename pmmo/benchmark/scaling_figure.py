"""The figure of time and memory against movies, width, cycles and threads, log-log."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from pmmo.benchmark.machine import is_busy
from pmmo.benchmark.plan import LABELS
from pmmo.core.writing import write_bytes, write_text
from pmmo.reporting.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PNG_DPI,
    RED,
    STYLE,
    smaller_png,
    smaller_svg,
)

AXES = {
    "rows": "Training movies",
    "width": "Hidden units",
    "cycles": "Cycles",
    "threads": "Threads",
}
LOOKS = {  # colour, marker, dashes
    "pmmo": (BLUE, "o", "-"),
    "mmo": (GREEN, "^", "-"),
    "gmu": (ORANGE, "s", "-"),
    "plain": (RED, "D", "-"),
    "bound": (GREY, "x", "--"),
}


def plain_number(value: float, _: int = 0) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def panel(axes: Axes, part: pd.DataFrame, column: str) -> None:
    """Draw one quantity along one axis, with a line per contender."""
    for what, line in part.dropna(subset=column).groupby("what", sort=False):
        colour, marker, dashes = LOOKS[what]
        axes.plot(
            line["value"],
            line[column],
            color=colour,
            marker=marker,
            ls=dashes,
            ms=4,
            label=LABELS[what],
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    values = sorted(set(part["value"]))
    axes.set_xticks(values, [f"{v:.0f}" for v in values], size=5.8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(plain_number))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if high / low < 10:  # decades alone would give too few labels
        axes.set_ylim(low / 1.5, high * 1.5)
        axes.yaxis.set_minor_formatter(FuncFormatter(plain_number))
        axes.tick_params(axis="y", which="minor", labelsize=6.5)


def draw(frame: pd.DataFrame, machine: Mapping[str, Any]) -> Figure:
    """Draw time above and memory below, with one column per axis."""
    figure = Figure(figsize=(12, 6.2), layout="constrained")
    figure.set_layout_engine("constrained", rect=(0, 0.05, 1, 0.83))
    grid = figure.subplots(2, len(AXES))
    seen: dict[str, Artist] = {}
    for column, (axis, label) in enumerate(AXES.items()):
        part = frame[frame["axis"] == axis]
        above, below = grid[:, column]
        panel(above, part, "time")
        panel(below, part, "peak_gb")
        above.set_ylabel({"s": "Seconds"}.get(unit := part["quantity"].iloc[0], unit))
        below.set_ylabel("Peak memory, GB")
        below.set_xlabel(label)
        seen |= dict(zip(*reversed(above.get_legend_handles_labels()), strict=True))
    figure.legend(list(seen.values()), list(seen), loc="lower center", ncols=len(seen))
    figure.text(0.012, 0.985, "How time and memory grow", va="top", size=10.5, weight="bold")
    about = f"Log-log. {machine['cpu']}, {machine['cores']} cores, float32, torch "
    about += f"{machine['versions']['torch']}; one thread but for the last column."
    if is_busy(machine):
        about += "\nOther processes were running: times are too long. Repeat on a quiet machine."
    figure.text(0.012, 0.945, about, va="top", size=8.5, color=INK)
    return figure


def write_figure(frame: pd.DataFrame, machine: Mapping[str, Any], base: Path) -> None:
    """Write `base`.png, `base`.svg and `base`.csv."""
    with matplotlib.rc_context(STYLE):
        figure = draw(frame, machine)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=PNG_DPI)
    write_bytes(base.with_suffix(".svg"), smaller_svg(svg.getvalue()))
    write_bytes(base.with_suffix(".png"), smaller_png(png.getvalue()))
    write_text(base.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.6g"))
