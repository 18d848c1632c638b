"""The style of the figures and their common parts.

The colours are Okabe and Ito's, which colour-blind readers can distinguish. Systems also differ by
marker or dash.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pmmo.reporting.drawing_text import FONT, drawable
from pmmo.reporting.formats import row_label, source


def smaller_svg(svg: bytes) -> bytes:
    """Remove metadata and comments, and round coordinates to a hundredth of a point."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg.decode(), flags=re.S)
    parts = re.split(r"(scale\([^)]*\))", text)  # scale factors need all their digits
    parts[::2] = [re.sub(r"(\d\.\d{2})\d+", r"\1", part) for part in parts[::2]]
    return re.sub(r"\s*\n\s*", "\n", "".join(parts)).encode()


def smaller_png(png: bytes) -> bytes:
    """Reduce to 128 colours: a third of the bytes without a visible difference."""
    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
            content, format="png", optimize=True
        )
    return content.getvalue()


INK, GRID, PAPER = "#1f2328", "#d5d9de", "#ffffff"  # the page recolours these three
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8c9198"
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "pmmo",
    "svg.fonttype": "path",
    "axes.unicode_minus": True,
    "text.parse_math": False,  # a name may have dollar signs
}
PNG_DPI = 110
LONGEST_LABEL, LONGEST_GENRE, LONGEST_SOURCE = 66, 40, 90  # characters that a figure has room for
MOST_GENRES = 60  # that a figure has room for
SYSTEMS = {  # the three systems that the paper's text compares
    "pmmo-kl-l2": (BLUE, "o"),
    "gmu": (ORANGE, "s"),
    "mmo": (GREEN, "^"),
}
Drawn = tuple[Figure, pd.DataFrame]  # a figure and the numbers it shows


def label(numbers: Mapping, name: str) -> str:
    """The label of a variant."""
    return shorter(drawable(row_label(numbers, name), LONGEST_LABEL, name), 34)


def genre_names(numbers: Mapping) -> list[str]:
    """Every genre as figures call it: `genre 3` is the third, where no font has its name."""
    genres = enumerate(numbers["data"]["genres"], start=1)
    return [drawable(genre, LONGEST_GENRE, f"genre {place}") for place, genre in genres]


def drawn_genres(numbers: Mapping) -> tuple[np.ndarray, str]:
    """The places of the genres that figures draw, and a line that says so if these are not all.

    All genres, or the most frequent ones; either way in the order of the data.
    """
    counts = np.array(numbers["data"]["counts"])
    if len(counts) <= MOST_GENRES:
        return np.arange(len(counts)), ""
    most = np.sort(np.argsort(-counts, kind="stable")[:MOST_GENRES])
    note = f"\nThe {MOST_GENRES} most frequent of {len(counts):,} genres; the CSV file has all."
    return most, note


def stand_ins(numbers: Mapping) -> dict[str, str]:
    """{what figures call it: the genre} of the genres that no font has."""
    pairs = zip(genre_names(numbers), numbers["data"]["genres"], strict=True)
    return {shown: genre for shown, genre in pairs if drawable(genre, LONGEST_GENRE, "") == ""}


def cycles(numbers: Mapping) -> int:
    """The number of cycles in the means."""
    return max(len(variant["seeds"]) for variant in numbers["variants"].values())


def titled(figure: Figure, numbers: Mapping, title: str, detail: str = "") -> None:
    """Add a bold title and a line with the detail and the data."""
    height = figure.get_size_inches()[1]
    figure.text(0.012, 1 - 0.08 / height, title, va="top", size=10.5, weight="bold")
    data = drawable(source(numbers), LONGEST_SOURCE, f"{numbers['data']['rows']:,} movies")
    data = data[0].upper() + data[1:]
    if stand_ins(numbers):
        data += "; names that no font here has: in the CSV file"
    lines = f"{detail}\n{data}." if detail else f"{data}."
    figure.text(0.012, 1 - 0.30 / height, lines, va="top", size=8.5, linespacing=1.35)


def sheet(width: float, height: float, above: float) -> Figure:
    """A figure without axes; the title and the detail have the inches `above`."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - above / height))
    return figure


def canvas(width: float, height: float, lines: int = 1) -> tuple[Figure, Axes]:
    """A figure with one axes and room above it for the title and `lines` of detail."""
    figure = sheet(width, height, 0.42 + 0.17 * lines)
    return figure, figure.add_subplot()


def list_down(axes: Axes, texts: Sequence[str]) -> None:
    """Name the places 0, 1, … of the y axis, from the top."""
    axes.set_yticks(range(len(texts)), texts)
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def band(entry: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation as arrays; an unknown deviation becomes zero, without a band."""
    mean = np.array(entry["mean"], dtype=float)
    sd = np.array(entry["sd"], dtype=float)
    return mean, np.nan_to_num(sd)


def panels(numbers: Mapping, names: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    """One small axes per variant, with common scales."""
    columns = min(4, max(1, len(names)))
    lines = -(-len(names) // columns)
    figure = sheet(1.0 + 2.0 * columns, 1.05 + height * lines, 0.78)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, names, strict=False):
        axes.set_title(label(numbers, name), size=8)
        axes.tick_params(labelbottom=True)
    return figure, list(grid[: len(names)])


def shorter(text: str, width: int = 52) -> str:
    """The text, in several lines if it is long."""
    return "\n".join(textwrap.wrap(text, width))
