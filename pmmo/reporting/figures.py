"""The list of all figures, and their rendering as SVG, PNG and CSV.

The same numbers give the same bytes (fixed hash salt, no dates).
"""

import io
from collections.abc import Callable, Mapping

import matplotlib

from pmmo.reporting.diagnostic_figures import gates, learning_curves, reliability
from pmmo.reporting.formats import source
from pmmo.reporting.paper_figures import differences, figure1, figure2, figure3
from pmmo.reporting.style import PNG_DPI, STYLE, Drawn, smaller_png, smaller_svg

FIGURES: dict[str, Callable[[Mapping], Drawn]] = {
    "figure1": figure1,
    "figure2": figure2,
    "figure3": figure3,
    "learning_curves": learning_curves,
    "reliability": reliability,
    "gates": gates,
    "differences": differences,
}


def render(numbers: Mapping, name: str) -> dict[str, bytes]:
    """One figure as {"svg", "png", "csv"}: bytes."""
    with matplotlib.rc_context(STYLE):
        figure, frame = FIGURES[name](numbers)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=PNG_DPI)
    text = frame.assign(data=source(numbers)).to_csv(index=False, float_format="%.6g")
    return {
        "svg": smaller_svg(svg.getvalue()),
        "png": smaller_png(png.getvalue()),
        "csv": text.encode(),
    }
