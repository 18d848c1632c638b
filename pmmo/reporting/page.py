"""One self-contained page with every report, without network, scripts or external fonts."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pmmo.core.text import printable
from pmmo.reporting.formats import Table, hardware, is_synthetic, numeric, provenance, source
from pmmo.reporting.style import BLUE, GREEN, GREY, GRID, INK, ORANGE, PAPER, RED
from pmmo.reporting.verdict_tables import VERDICTS

TEMPLATE = "page.html.j2"
SOURCES = ("pmmo", "stages", "params.yaml", "dvc.yaml", "requirements-run.txt")
COLOURS = {  # figure colour -> the page's value for light and dark
    INK: "currentColor",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    RED: "var(--red)",
    GREY: "var(--grey)",
}
ALT = {
    "figure1": "Bar chart of movies per genre",
    "figure2": "Dev weighted F1 by epoch of the GMU with and without regularisation",
    "figure3": "F1 of each genre for PM+MO and the GMU",
    "learning_curves": "Train and dev weighted F1 by epoch for every row",
    "reliability": "Observed frequency against forecast probability for every row",
    "abstention": "Risk of the answered movies against the share that is answered",
    "gates": "Mean gate by genre, and scores without the text or the image",
    "differences": "Differences with intervals beside the paper's differences",
    "power": "The smallest difference that each number of cycles shows, beside the paper's",
    "protocols": "What each habit of published scores adds to the F1 of the three systems",
}


def inline_svg(name: str, svg: bytes) -> str:
    """A figure for use inside HTML, with its own ids, the page's colours and a flexible width."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # it would style the whole page
    text = re.sub(r'(?<= id=")|(?<=url\(#)|(?<=href="#)', f"{name}-", text)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, variable)
    box, wide = re.findall(r'(viewBox="0 0 ([\d.]+) [\d.]+")', text)[0]
    width = float(wide)  # below 0.75 of it the text is too small, so the figure scrolls
    opening = (
        f'<svg {box} style="max-width:{width:g}pt;min-width:{0.75 * width:.0f}pt" '
        f'role="img" aria-label="{ALT[name]}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + text[text.index(">") + 1 :]


def revision(root: Path) -> str:
    """The git commit, and whether code or parameters differ from it."""
    try:
        commit = git(root, "rev-parse", "HEAD").strip()
        changed = git(root, "status", "--porcelain", "--", *SOURCES).strip()
    except (OSError, subprocess.SubprocessError):
        return "not known (rendered outside a git repository)"
    return f"{commit}, with uncommitted changes" if changed else commit


def git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, timeout=10
    ).stdout


def settings_rows(numbers: Mapping) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Variant names, and each setting with its values in all variants."""
    variants = numbers["variants"]
    keys = dict.fromkeys(key for variant in variants.values() for key in variant["settings"])
    rows = []
    for key in keys:
        values = [variant["settings"].get(key) for variant in variants.values()]
        rows.append((key, ["–" if value is None else str(value) for value in values]))
    return list(variants), rows


def shown(value: object) -> object:
    """Text without what cannot be seen; HTML as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render_page(
    numbers: Mapping,
    tables: Sequence[Table],
    svgs: Mapping[str, bytes],
    commit: str,
    undrawn: str = "",
) -> str:
    """The page's HTML; `undrawn` are the genres that the figures only number."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    names, settings = settings_rows(numbers)
    return environment.get_template(TEMPLATE).render(
        numbers=numbers,
        synthetic=is_synthetic(numbers),
        source=source(numbers),
        tables={table.name: table for table in tables},
        numeric=numeric,
        figures={name: inline_svg(name, svg) for name, svg in svgs.items()},
        provenance=provenance(numbers) | {"Hardware": hardware(numbers["clock"])},
        origin=numbers["data"]["provenance"],
        variants=names,
        settings=settings,
        commit=commit,
        verdicts=VERDICTS,
        undrawn=undrawn,
    )
