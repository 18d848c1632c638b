"""gpu.md and gpu.json: what `make gpu` found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmmo.benchmark.gpu_accuracy import LARGE
from pmmo.benchmark.plan import LABELS
from pmmo.benchmark.tables import grid
from pmmo.core.errors import PmmoError
from pmmo.core.writing import write_json, write_text


def sections(found: dict[str, Any]) -> Iterator[str]:
    about = found["about"]
    yield f"# A step on {about['gpu'] or about['cpu']}"
    facts = [(k, v) for k, v in about.items() if not isinstance(v, dict) and v is not None]
    yield grid(("", ""), facts, 2)
    yield grid(("Package", "Version"), list(about["versions"].items()), 2)
    if "tests" in found:
        yield f"Tests marked `gpu`: {found['tests']['words']}"
    yield "## Against float64 on the CPU"
    yield "The largest relative difference of a loss term or gradient of one batch."
    yield grid(
        ("Row", "Difference", "Where", ""),
        [
            (a["row"], f"{a['difference']:.1e}", a["where"], "ok" if small(a) else "LARGE")
            for a in found["accuracy"]
        ],
        4,
    )
    yield "## Waits and repeatability"
    places = found["waits"] or {}
    yield grid(
        ("Step", "The host waits at", "Two trainings from one seed"),
        [
            (
                LABELS[name],
                (", ".join(places[name]) or "no place") if name in places else "not measured",
                "equal bit for bit" if same else "DIFFER",
            )
            for name, same in found["repeats"].items()
        ],
        3,
    )
    yield "## What the card can do"
    yield f"Copy: {found['ceilings']['copy']:.2f} TB/s, bytes read and written. Products, TFLOP/s:"
    yield grid(
        ("Precision", "output", "gradient of the weights", "gradient of the input"),
        [
            (name, *(f"{rate:.1f}" for rate in rates.values()))
            for name, rates in found["ceilings"].items()
            if name != "copy"
        ],
        1,
    )
    yield "## Milliseconds per step and cycle"
    yield grid(
        ("Step", "Width", "Precision", "ms", "s per epoch", "peak GB"),
        [step(line) for line in found["steps"]],
        3,
    )
    for part in found["profiles"]:
        yield (
            f"## The largest kernels: {LABELS[part['contender']]}\n\nA step of all cycles takes "
            f"{part['step_ms']:.2f} ms; the host needs {part['host_ms']:.2f} ms for it, and its "
            f"{part['kernels']:.0f} kernels take {part['kernels_ms']:.2f} ms."
        )
        kernels = [(f"`{k['name']}`", f"{k['ms']:.3f}") for k in part["largest"]]
        yield grid(("Kernel", "ms per step"), kernels, 1)


def step(line: dict[str, Any]) -> tuple[object, ...]:
    head = (LABELS[line["contender"]], line["width"], line["precision"])
    if "error" in line:
        return (*head, line["error"], "", "")
    peak = "" if line["peak_gb"] is None else f"{line['peak_gb']:.2f}"
    return (*head, f"{line['ms']:.2f}", f"{line['epoch_seconds']:.3f}", peak)


def small(line: dict[str, Any]) -> bool:
    return bool(line["difference"] < LARGE)


def write(folder: Path, found: dict[str, Any]) -> None:
    """Both files; then PmmoError if the card is wrong somewhere."""
    write_json(folder / "gpu.json", found)
    write_text(folder / "gpu.md", "\n\n".join(sections(found)) + "\n")
    wrong = [line["row"] for line in found["accuracy"] if not small(line)]
    if not found.get("tests", {"passed": True})["passed"]:
        wrong.append("the tests marked gpu")
    if wrong:
        raise PmmoError(f"{', '.join(wrong)}: wrong on this device; see {folder / 'gpu.md'}")
