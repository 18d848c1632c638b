"""reports/numbers.json and provenance.json -> tables, figures and the page, in reports/."""

import json
from pathlib import Path

from pmmo.core.errors import PmmoError
from pmmo.core.stage import run
from pmmo.core.writing import write_bytes, write_text
from pmmo.reporting.figures import FIGURES, render, undrawn
from pmmo.reporting.formats import csv_text, to_markdown
from pmmo.reporting.latex import to_latex
from pmmo.reporting.page import render_page, revision
from pmmo.reporting.tables import TABLES


def main(root: Path = Path()) -> None:
    reports = root / "reports"
    numbers = numbers_of(reports)
    tables = [make(numbers) for make in TABLES]
    for table in tables:
        write_text(reports / "tables" / f"{table.name}.md", to_markdown(table, numbers))
        write_text(reports / "tables" / f"{table.name}.csv", csv_text(table.frame, numbers))
        if table.groups:
            write_text(reports / "tables" / f"{table.name}.tex", to_latex(table, numbers))
    svgs = {}
    for name in FIGURES:
        for kind, content in render(numbers, name).items():
            write_bytes(reports / "figures" / f"{name}.{kind}", content)
            if kind == "svg":
                svgs[name] = content
    page = render_page(numbers, tables, svgs, revision(root), undrawn(numbers))
    write_text(reports / "index.html", page)


def numbers_of(reports: Path) -> dict:
    """The numbers of the stage before, with those of the clock as `clock`."""
    return read(reports / "numbers.json") | {"clock": read(reports / "provenance.json")}


def read(path: Path) -> dict:
    """What the stage before wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PmmoError(f"{path}: {error}. Run dvc repro aggregate.") from None


if __name__ == "__main__":
    run("report", main)
