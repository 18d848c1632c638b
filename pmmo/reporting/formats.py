"""Formats of numbers, tables and their origin: Markdown, CSV and LaTeX.

The CSV of a table contains its frame (plain numbers, one fact per line); the other formats contain
its cells. Every format names the data, and synthetic data is always called synthetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd


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
    kind, name = provenance["kind"], provenance["source"]
    if kind == "synthetic":
        return f"synthetic data ({numbers['data']['rows']:,} movies), not MM-IMDb"
    return f"{name} ({numbers['data']['rows']:,} movies)"


def is_synthetic(numbers: Mapping) -> bool:
    """Whether the data is synthetic, so that the scores only test the pipeline."""
    return numbers["data"]["provenance"]["kind"] == "synthetic"


def unique(values: Sequence[object]) -> str:
    """Distinct values in order of appearance, comma-separated."""
    return ", ".join(dict.fromkeys(str(value) for value in values))


def provenance(numbers: Mapping) -> dict[str, str]:
    """The origin stated in every report: data, rows, parameters, seeds, machine."""
    data, variants = numbers["data"], list(numbers["variants"].values())
    environments = [variant["environment"] for variant in variants]
    splits = ", ".join(f"{name} {stop - start:,}" for name, (start, stop) in data["splits"].items())

    def setting(key: str) -> str:
        return unique([variant["settings"].get(key, "–") for variant in variants])

    def machine(key: str) -> str:
        return unique([entry[key] for entry in environments if entry.get(key)]) or "none"

    seconds = {name: number(cost["mean"], 2) for name, cost in numbers["costs"].items()}
    libraries = ", ".join(f"{name} {value}" for name, value in numbers["versions"].items())
    return {
        "Data": source(numbers),
        "Rows": f"{splits}; {len(data['genres'])} genres; {data['unlabelled']} without a label; "
        f"{data['nan_text']['count']} without text (policy: {data['nan_text']['policy']})",
        "Parameters": f"epochs {setting('epochs')}; batch size {setting('batch_size')}; "
        f"width {setting('width')}; dropout {setting('dropout')}; "
        f"threshold {setting('threshold')}",
        "Seeds": unique([unique(variant["seeds"]) for variant in variants]),
        "Training": f"python {machine('python')}, torch {machine('torch')}, "
        f"pyro {machine('pyro')}, cuda {machine('cuda')}, float32 products {machine('precision')}",
        "Reports": libraries,
        "Hardware": f"{machine('device')}; CPU {machine('cpu')}, {machine('cores')} cores; "
        f"GPU {machine('gpu')}",
        "Seconds per epoch": unique([f"{name} {value}" for name, value in seconds.items()]),
    }


def numeric(table: Table) -> list[bool]:
    """Which columns have numbers, which are right-aligned."""
    starts = tuple("0123456789+−–")
    return [
        column > 0 and all(row[column].startswith((*starts, "not run")) for row in table.rows)
        for column in range(len(table.header))
    ]


def to_markdown(table: Table, numbers: Mapping) -> str:
    """Title, data, cells, notes and provenance."""
    header = list(table.header)
    if table.groups:
        names = [heading for heading, columns in table.groups for _ in range(columns)]
        header = [f"{a} {b}".strip() for a, b in zip(names, header, strict=True)]
    lines = [f"# {table.title}", "", f"Data: {source(numbers)}.", ""]
    lines += ["| " + " | ".join(header) + " |"]
    lines += ["|" + "".join("---:|" if right else "---|" for right in numeric(table))]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    lines += ["", *table.notes, "", "---", ""]
    return "\n".join(lines + [f"- {key}: {value}" for key, value in provenance(numbers).items()])


def to_csv(table: Table, numbers: Mapping) -> str:
    """The frame, with the data named on each line."""
    frame = table.frame.assign(data=source(numbers))
    return frame.to_csv(index=False, float_format="%.6g")


LATEX = {"±": r"$\pm$", "−": "$-$", "λ": r"$\lambda$", "×": r"$\times$", "–": "--", "≥": r"$\ge$"}


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    for character, command in LATEX.items():
        text = text.replace(character, command)
    return text


def to_latex(table: Table, numbers: Mapping) -> str:
    """A booktabs table; needs \\usepackage{booktabs}."""
    lines = [f"% {key}: {value}" for key, value in provenance(numbers).items()]
    lines += [r"\begin{table}", r"\centering"]
    caption = " ".join((f"{table.title}.", *table.notes, f"Data: {source(numbers)}."))
    lines += [rf"\caption{{{latex(caption)}}}", rf"\label{{tab:{table.name}}}"]
    columns = "".join("r" if right else "l" for right in numeric(table))
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if table.groups:
        lines += [" & ".join(rf"\multicolumn{{{n}}}{{c}}{{{h}}}" for h, n in table.groups) + r" \\"]
    for row in (table.header, None, *table.rows):
        lines += [r"\midrule" if row is None else " & ".join(map(latex, row)) + r" \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])
