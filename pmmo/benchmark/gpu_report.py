"""gpu.md and gpu.json: what `make gpu` found."""

from pathlib import Path
from typing import Any

from pmmo.benchmark.gpu_accuracy import LARGE
from pmmo.benchmark.plan import LABELS
from pmmo.benchmark.tables import render
from pmmo.core.errors import PmmoError
from pmmo.core.writing import write_json, write_text


def write(folder: Path, found: dict[str, Any]) -> None:
    """Both files; then PmmoError if the card is wrong somewhere."""
    write_json(folder / "gpu.json", found)
    write_text(folder / "gpu.md", render("gpu.md.j2", found=found, labels=LABELS, large=LARGE))
    wrong = [line["row"] for line in found["accuracy"] if not line["difference"] < LARGE]
    if not found.get("tests", {"passed": True})["passed"]:
        wrong.append("the tests marked gpu")
    if wrong:
        raise PmmoError(f"{', '.join(wrong)}: wrong on this device; see {folder / 'gpu.md'}")
