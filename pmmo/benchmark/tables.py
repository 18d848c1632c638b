"""Write benchmark.md, .csv and .json from the results of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pmmo.benchmark.cases import PHASES
from pmmo.benchmark.goals import Goal, goals
from pmmo.benchmark.machine import is_busy
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


def render(template: str, **values: object) -> str:
    """A document from a template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def markdown(plan: Plan, about: Mapping[str, Any], results: Sequence[Result]) -> str:
    shape = plan.shape
    return render(
        "benchmark.md.j2",
        plan=plan,
        shape=shape,
        about=about,
        results=results,
        matmul=sorted({r.facts["matmul"] for r in results if "matmul" in r.facts}),
        glance=GLANCE,
        busy=is_busy(about),
        table=grid(HEADER, [cells(facts(result), result) for result in results], 3),
        goals=grid(
            ("Ratio", "Goal", "Measured", "Verdict"),
            [goal_cells(goal) for goal in goals(plan, results)],
            1,
        ),
        data_gb=4 * shape.movies * (shape.text + shape.image + shape.genres) / 1e9,
        number=number,
        thousands="{:,}".format,
    )


def write(folder: Path, plan: Plan, about: Mapping[str, Any], results: Sequence[Result]) -> None:
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
