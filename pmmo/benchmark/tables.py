"""Write benchmark.md, .csv and .json from the results of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from pmmo.benchmark.cases import PHASES
from pmmo.benchmark.goals import Goal, goals
from pmmo.benchmark.machine import About, is_busy
from pmmo.benchmark.measure import Result
from pmmo.benchmark.plan import LABELS, Plan
from pmmo.core.writing import write_json, write_text
from pmmo.reporting.formats import number
from pmmo.training.loop import GLANCE

HEADER = (
    *("Step", "Width", "Mode", "ms per step", "min–max", "s per epoch", "ratio"),
    *PHASES,
    "peak GB",
)
NOTES = """\
- **ms per step**: median over the rounds, each the mean of the steps of a turn. Contenders take
  turns in one run (A B C, A B C), each in its own process on the same cores.
- **ratio**: this step's time over PM+MO's in the same round, the median over the rounds; above 1,
  PM+MO is faster.
- **Phases**: the calls inside the step are timed and each moment is charged to the innermost phase
  that is open; *backward* is what the others leave over, *KL* includes the penalty; terms that are
  evaluated along with the draw count as *draw*, gradients computed while they are applied as
  *update*. They have rounds of their own: their sum is about the step.
- **Hardware bound**: the time of PM+MO's matrix products, each alone at its own shape, plus its
  other memory traffic at the measured bandwidth; `pmmo/benchmark/bound.py` has formula and counts.
- **Plain Pyro step**: `pmmo/benchmark/plain.py`, in a process prepared as training's is (allocator,
  matrix products, validation off). *Unprepared process*: the same code as a tutorial's reader runs
  it.
- **Deterministic step**: M+MO, the same networks without posterior.
- **Peers** have Gaussian posteriors and no penalty; their Adam is torch's fused kernel. NumPyro's
  step has Laplace weights and is compiled whole.
- **peak GB**: the largest resident memory of the process, libraries and {data:.2f} GB of movies
  included; on a GPU, of tensors on the card."""


def facts(result: Result) -> dict[str, Any]:
    """One line of the CSV; values that were not measured are None."""
    case, ms = result.case, [1e3 * seconds for seconds in result.seconds]
    measured = bool(ms)
    line: dict[str, Any] = {
        "contender": case.contender,
        "label": LABELS[case.contender],
        "width": case.settings.width,
        "batch": case.settings.batch_size,
        "device": case.device,
        "threads": case.threads,
        "precision": case.precision,
        "matmul": result.facts.get("matmul"),
        "rounds": len(ms),
        "ms_per_step": 1e3 * result.median if measured else None,
        "ms_min": min(ms, default=None),
        "ms_max": max(ms, default=None),
        "seconds_per_epoch": result.median * case.steps_per_epoch if measured else None,
        "ratio": result.ratio,
    }
    for phase in PHASES:
        line[f"{phase.lower()}_ms"] = 1e3 * result.phases[phase] if result.phases else None
    for name in ("dev", "glance"):
        line[f"{name}_s"] = result.facts.get(f"{name}_seconds")
    peak = result.facts.get("peak_bytes")
    line["peak_gb"] = peak / 1e9 if peak else None
    for name, value in (result.facts.get("rates") or {}).items():
        line[f"bound_{name}"] = value
    return line | {"error": result.error}


def cells(line: Mapping[str, Any], result: Result) -> list[str]:
    """The same line as cells of the Markdown table."""
    start = [str(line["label"]), f"{line['width']:,}", result.case.mode]
    if result.error:
        return [*start, result.error, *[""] * (len(HEADER) - 4)]
    return [
        *start,
        number(line["ms_per_step"], 1),
        f"{line['ms_min']:.1f}–{line['ms_max']:.1f}",
        number(line["seconds_per_epoch"], 2),
        number(line["ratio"], 2),
        *(number(line[f"{phase.lower()}_ms"], 1) for phase in PHASES),
        number(line["peak_gb"], 2),
    ]


def goal_cells(goal: Goal) -> list[str]:
    verdict = {True: "met", False: "**not met**", None: "not measured"}[goal.met]
    limit = f"{goal.sign} {goal.limit:g}{goal.unit}"
    return [goal.text, limit, number(goal.measured, 2), verdict]


def grid(header: Sequence[str], rows: Sequence[Sequence[object]], left: int) -> str:
    """A Markdown table; the columns after the first `left` are right-aligned."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, rule, *rows))


def bound_line(result: Result) -> str:
    rates = result.facts["rates"]
    return (
        f"- Bound at width {result.case.settings.width:,}, {result.case.mode}: "
        f"{rates['gflop']:.1f} GFLOP at {rates['gflops']:.0f} GFLOP/s = "
        f"{rates['products_ms']:.0f} ms; {rates['gigabytes']:.2f} GB at "
        f"{rates['gigabytes_per_second']:.1f} GB/s = {rates['traffic_ms']:.0f} ms."
    )


def hardware(about: About, results: Sequence[Result]) -> list[str]:
    """Machine, versions and mode, one line each."""
    matmul = sorted({r.facts["matmul"] for r in results if "matmul" in r.facts})
    first = next(r for r in results if r.case.contender == "pmmo")
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    return [
        f"- CPU {about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; "
        f"GPU {about['gpu'] or 'none'}; {about['system']}; "
        f"load before the run {about['load_before']}.",
        f"- python {about['python']}, {versions}.",
        f"- Precision float32, torch's matmul precision: {', '.join(matmul)} "
        f"(PM+MO: {first.facts['matmul']}). Allocator: glibc keeps freed blocks (mallopt, "
        f"`pmmo/training/device.py`); transparent huge pages: {about['huge_pages']}, "
        f"THP_MEM_ALLOC_ENABLE {first.facts['thp_alloc']}.",
    ]


def beside(about: About, results: Sequence[Result]) -> list[str]:
    """Lines about the time that training spends outside its steps."""
    lines = [
        f"- Start of a training stage, until it could read its movies: "
        f"{about['start_up_seconds']:.1f} s."
    ]
    for result in results:
        case, found = result.case, result.facts
        if "dev_seconds" in found and case.contender == "pmmo" and case.threads == 1:
            lines.append(
                f"- Evaluation after each epoch of PM+MO at width {case.settings.width:,}, "
                f"{case.mode}: {found['dev_seconds']:.3f} s for dev ({case.shape.dev:,} "
                f"movies), {found['glance_seconds']:.3f} s for {GLANCE} of the training movies."
            )
    return lines


def busy(about: About) -> list[str]:
    """A warning if other work may have run during the benchmark."""
    if not is_busy(about):
        return []
    return [
        f"- **Other processes were running (load {about['load_before']}, {about['cores']} cores): "
        "times are too long, ratios rough. Repeat on a quiet machine.**"
    ]


def markdown(plan: Plan, about: About, results: Sequence[Result]) -> str:
    shape, case = plan.shape, results[0].case
    data = 4 * shape.movies * (shape.text + shape.image + shape.genres) / 1e9
    rows = [cells(facts(result), result) for result in results]
    bounds = [bound_line(r) for r in results if r.case.contender == "bound"]
    return "\n".join(
        [
            "# What a training step costs",
            "",
            f"`make bench`{' (quick)' if plan.quick else ''}: {shape.movies:,} random movies of "
            f"{shape.text} + {shape.image:,} features and {shape.genres} genres, batches of "
            f"{case.settings.batch_size}, {case.steps_per_epoch} steps per epoch; classifier "
            f"{case.settings.maxout_layers} x {case.settings.maxout_units} units of "
            f"{case.settings.maxout_pieces} pieces.",
            "",
            *hardware(about, results),
            *bounds,
            *beside(about, results),
            *busy(about),
            "",
            grid(HEADER, rows, 3),
            "",
            "## Goals",
            "",
            grid(
                ("Ratio", "Goal", "Measured", "Verdict"),
                [goal_cells(goal) for goal in goals(plan, results)],
                1,
            ),
            "",
            "## How to read it",
            "",
            NOTES.format(data=data),
        ]
    )


def write(folder: Path, plan: Plan, about: About, results: Sequence[Result]) -> None:
    """Write benchmark.json, .csv and .md into `folder`."""
    lines = [facts(result) for result in results]
    found = [asdict(goal) | {"met": goal.met} for goal in goals(plan, results)]
    rounds = {
        "seconds": [list(result.seconds) for result in results],
        "pmmo_beside": [list(result.beside) for result in results],
    }
    everything = {"machine": about, "plan": asdict(plan), "rows": lines, "goals": found}
    write_json(folder / "benchmark.json", everything | {"rounds": rounds})
    write_text(
        folder / "benchmark.csv", pd.DataFrame(lines).to_csv(index=False, float_format="%.6g")
    )
    write_text(folder / "benchmark.md", markdown(plan, about, results))
