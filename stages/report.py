"""reports/numbers.json -> tables, figures and the page, in reports/."""

import json
from pathlib import Path

from pmmo.core.errors import PmmoError
from pmmo.core.stage import run
from pmmo.core.writing import write_bytes, write_text
from pmmo.reporting.figures import FIGURES, render
from pmmo.reporting.formats import to_csv, to_latex, to_markdown
from pmmo.reporting.page import render_page, revision
from pmmo.reporting.tables import TABLES


def main(root: Path = Path()) -> None:
    reports = root / "reports"
    try:
        numbers = json.loads((reports / "numbers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PmmoError(f"{reports / 'numbers.json'}: {error}. Run dvc repro aggregate.") from None
    tables = [make(numbers) for make in TABLES]
    for table in tables:
        write_text(reports / f"{table.name}.md", to_markdown(table, numbers))
        write_text(reports / f"{table.name}.csv", to_csv(table, numbers))
        if table.groups:
            write_text(reports / f"{table.name}.tex", to_latex(table, numbers))
    svgs = {}
    for name in FIGURES:
        for kind, content in render(numbers, name).items():
            write_bytes(reports / f"{name}.{kind}", content)
            if kind == "svg":
                svgs[name] = content
    write_text(reports / "index.html", render_page(numbers, tables, svgs, revision(root)))


if __name__ == "__main__":
    run("report", main)
