"""The list of all figures, and their rendering as SVG, PNG and CSV.

The same numbers give the same bytes (fixed hash salt, no dates).
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib

from pmmo.reporting.abstention import risk_coverage
from pmmo.reporting.diagnostic_figures import gates, learning_curves, reliability
from pmmo.reporting.drawing_text import fonts_for
from pmmo.reporting.formats import csv_text, source
from pmmo.reporting.paper_figures import differences, figure1, figure2, figure3
from pmmo.reporting.protocols import figure as protocols
from pmmo.reporting.style import PNG_DPI, STYLE, Drawn, smaller_png, smaller_svg, stand_ins
from pmmo.reporting.verdict_figures import power

FIGURES: dict[str, Callable[[Mapping], Drawn]] = {
    "figure1": figure1,
    "figure2": figure2,
    "figure3": figure3,
    "learning_curves": learning_curves,
    "reliability": reliability,
    "abstention": risk_coverage,
    "gates": gates,
    "differences": differences,
    "power": power,
    "protocols": protocols,
}


def fonts(numbers: Mapping) -> dict[Any, Any]:
    """The setting of matplotlib for the names that figures show."""
    labels = [variant["label"] for variant in numbers["variants"].values()]
    return {"font.family": fonts_for([*numbers["data"]["genres"], *labels, source(numbers)])}


def undrawn(numbers: Mapping) -> str:
    """The genres that figures only number, for a caption; empty where fonts have all names."""
    with matplotlib.rc_context(fonts(numbers)):
        return "; ".join(f"{shown}: {genre}" for shown, genre in stand_ins(numbers).items())


def render(numbers: Mapping, name: str) -> dict[str, bytes]:
    """One figure as {"svg", "png", "csv"}: bytes."""
    with matplotlib.rc_context(STYLE | fonts(numbers)):
        figure, frame = FIGURES[name](numbers)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=PNG_DPI)
    return {
        "svg": smaller_svg(svg.getvalue()),
        "png": smaller_png(png.getvalue()),
        "csv": csv_text(frame, numbers).encode(),
    }
