"""Formats of numbers, tables and their origin: Markdown, CSV and LaTeX.

The CSV of a table contains its frame (plain numbers, one fact per line); the other formats contain
its cells. Every format names the data, and synthetic data is always called synthetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pmmo.core import text as shown
from pmmo.core.text import markdown, name

UNTRAINED = "did not train"


@dataclass(frozen=True)
class Table:
    """A report: cells for people, a frame for programs, and notes below."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()  # (heading, columns) above the header


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number with a true minus sign, or a dash if it is unknown."""
    if value is None or value != value:
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:  # neither +0.000 nor -0.000
        text = text.lstrip("+-")
    return text.replace("-", "−")


def spread(entry: Mapping[str, float | None], digits: int = 3) -> str:
    """`mean ± sd`, or the mean alone after a single cycle."""
    if entry["sd"] is None:
        return number(entry["mean"], digits)
    return f"{number(entry['mean'], digits)} ± {number(entry['sd'], digits)}"


def interval(entry: Mapping, digits: int, sign: bool = False) -> str:
    """`low to high`, or a dash if it is unknown."""
    if entry["low"] is None:
        return "–"
    return f"{number(entry['low'], digits, sign)} to {number(entry['high'], digits, sign)}"


def source(numbers: Mapping) -> str:
    """The data in a few words; synthetic data is always called synthetic."""
    provenance = numbers["data"]["provenance"]
    if provenance["kind"] == "synthetic":
        return f"synthetic data ({numbers['data']['rows']:,} movies), not MM-IMDb"
    return f"{name(provenance['source'])} ({numbers['data']['rows']:,} movies)"


def is_synthetic(numbers: Mapping) -> bool:
    """Whether the data is synthetic, so that the scores only test the pipeline."""
    return numbers["data"]["provenance"]["kind"] == "synthetic"


def unique(values: Sequence[object]) -> str:
    """Distinct values in order of appearance, comma-separated."""
    return ", ".join(dict.fromkeys(str(value) for value in values))


def row_label(numbers: Mapping, row: str) -> str:
    """The row's text, and whether it did not train."""
    text = name(numbers["variants"][row]["label"])
    return text if numbers["training"]["rows"][row]["trained"] else f"{text} ({UNTRAINED})"


def provenance(numbers: Mapping) -> dict[str, str]:
    """The origin stated in every report: data, rows, parameters, seeds, machine."""
    data, variants = numbers["data"], list(numbers["variants"].values())
    splits = ", ".join(
        f"{split} {stop - start:,}" for split, (start, stop) in data["splits"].items()
    )
    libraries = ", ".join(f"{library} {value}" for library, value in numbers["versions"].items())

    def setting(key: str) -> str:
        return unique([variant["settings"].get(key, "–") for variant in variants])

    def software(key: str) -> str:
        return unique([variant["software"][key] for variant in variants])

    return {
        "Data": source(numbers),
        "Rows": f"{splits}; {len(data['genres'])} genres; {data['unlabelled']} without a label; "
        f"{data['nan_text']['count']} without text (policy: {data['nan_text']['policy']})",
        "Parameters": f"epochs {setting('epochs')}; batch size {setting('batch_size')}; "
        f"width {setting('width')}; dropout {setting('dropout')}; "
        f"threshold {setting('threshold')}",
        "Seeds": unique([unique(variant["seeds"]) for variant in variants]),
        "Training": f"torch {software('torch')}, pyro {software('pyro')}, "
        f"products {software('precision')}",
        "Reports": libraries,
    }


def hardware(clock: Mapping) -> str:
    """What trained the rows."""
    machines = clock["machines"].values()

    def part(key: str) -> str:
        return unique([machine[key] for machine in machines if machine.get(key)]) or "none"

    return (
        f"{part('device')}; CPU {part('cpu')}, {part('cores')} cores; GPU {part('gpu')}, "
        f"CUDA {part('cuda')}; Python {part('python')}"
    )


def numeric(table: Table) -> list[bool]:
    """Which columns have numbers, which are right-aligned."""
    starts = tuple("0123456789+−–")
    return [
        column > 0
        and all(row[column].startswith((*starts, "not run", "none")) for row in table.rows)
        for column in range(len(table.header))
    ]


def to_markdown(table: Table, numbers: Mapping) -> str:
    """Title, data, cells, notes and provenance."""
    header = list(table.header)
    if table.groups:
        names = [heading for heading, columns in table.groups for _ in range(columns)]
        header = [f"{a} {b}".strip() for a, b in zip(names, header, strict=True)]
    lines = [f"# {table.title}", "", f"Data: {markdown(source(numbers))}.", ""]
    lines += ["| " + " | ".join(header) + " |"]
    lines += ["|" + "".join("---:|" if right else "---|" for right in numeric(table))]
    lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in table.rows]
    lines += ["", *table.notes, "", "---", ""]
    facts = provenance(numbers).items()
    return "\n".join(lines + [f"- {key}: {markdown(value)}" for key, value in facts])


def csv_text(frame: pd.DataFrame, numbers: Mapping) -> str:
    """A frame as CSV, with a column that names its data; see `cell`."""
    frame = frame.assign(data=source(numbers)).map(cell)
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def cell(value: object) -> object:
    """Text fit for a CSV (`pmmo.core.text.cell`); any other value as it is."""
    return shown.cell(value) if isinstance(value, str) else value
