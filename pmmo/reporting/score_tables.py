"""The tables of F-scores: Tables 1 and 2, the rows beyond them, and the sanity rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from pmmo.core.names import AVERAGES
from pmmo.published import paper
from pmmo.reporting.formats import UNTRAINED, Table, number, row_label, spread

NOT_RUN = "not run"
GROUPS = (("", 1), *((average.capitalize(), 3) for average in AVERAGES))
PLAIN = [name for name in paper.AREVALO if not name.startswith("logistic")]  # the sanity rows
REGRESSIONS = {
    "text": "Logistic regression, text",
    "image": "Logistic regression, image",
    "both": "Logistic regression, both",
}


def table1(numbers: Mapping) -> Table:
    title = "Table 1. F-scores for PM+MO and the GMU baseline"
    return beside_the_paper(numbers, "table1", title, "System", paper.TABLE1)


def table2(numbers: Mapping) -> Table:
    title = "Table 2. Ablation for PM+MO"
    return beside_the_paper(numbers, "table2", title, "Specification", paper.TABLE2)


def beside_the_paper(
    numbers: Mapping, name: str, title: str, first: str, printed: Mapping[str, paper.Row]
) -> Table:
    """A table of the paper: its rows, our scores and its own."""
    cells, facts = score_rows(numbers, printed, printed)
    return Table(
        name,
        title,
        (first, *("ours", "paper", "diff.") * len(AVERAGES)),
        tuple(cells),
        pd.DataFrame(facts),
        (
            "Ours: test F-score, mean ± standard deviation over the cycles. Diff.: ours minus the "
            "paper's.",
            *untrained_note(numbers, printed),
        ),
        GROUPS,
    )


def table_released(numbers: Mapping) -> Table:
    """The rows that have no published score to compare with."""
    names = [name for name in numbers["variants"] if name not in paper.ROWS | paper.AREVALO]
    cells, facts = score_rows(numbers, names, {})
    return Table(
        "table_released",
        "Rows beyond Tables 1 and 2: the released code, the literal reading, other baselines",
        ("System", *(average.capitalize() for average in AVERAGES)),
        tuple((line[0], *line[1::3]) for line in cells),
        pd.DataFrame(facts),
        (
            "Mean ± standard deviation over the cycles.",
            "The paper prints no F-scores for these rows.",
            *untrained_note(numbers, names),
        ),
        (("", 1), ("Test F-score, ours", len(AVERAGES))),
    )


def sanity(numbers: Mapping) -> Table:
    """F-scores of the GMU, of its classifier alone and of logistic regression."""
    cells, facts = score_rows(numbers, PLAIN, paper.AREVALO)
    for inputs, label in REGRESSIONS.items():
        name, scores = f"logistic-{inputs}", numbers["logistic"][inputs]
        ours = {average: {"mean": scores[average], "sd": None} for average in AVERAGES}
        line, own = score_row(name, label, ours, paper.AREVALO.get(name), cycles=0)
        cells.append(line)
        facts += own
    return Table(
        "sanity",
        "Sanity rows: one column, or both without fusion",
        ("System", *("ours", "printed", "diff.") * len(AVERAGES)),
        tuple(cells),
        pd.DataFrame(facts),
        (
            "Ours: test F-score, mean ± standard deviation over the cycles. Printed: Arevalo et "
            "al. 2017, the GMU paper; diff.: ours minus theirs. The maxout MLP is the GMU's "
            "classifier without its fusion. Logistic regression (one-vs-rest, standardised) is "
            "deterministic: it has no cycles and no spread.",
            *untrained_note(numbers, PLAIN),
        ),
        GROUPS,
    )


def score_rows(
    numbers: Mapping, names: Iterable[str], printed: Mapping[str, paper.Row]
) -> tuple[list[tuple[str, ...]], list[dict[str, Any]]]:
    """Cells and facts of variants, whether they were run or not."""
    cells, facts = [], []
    for name in names:
        variant = numbers["variants"].get(name)
        line, own = score_row(
            name,
            row_label(numbers, name) if variant else printed[name].label,
            numbers["scores"][name]["test"] if variant else None,
            printed.get(name),
            cycles=len(variant["seeds"]) if variant else 0,
            trained=numbers["training"]["rows"][name]["trained"] if variant else None,
        )
        cells.append(line)
        facts += own
    return cells, facts


def score_row(
    name: str, label: str, ours: Mapping | None, printed: paper.Row | None, **more: object
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Cells and facts: for each F-score our value, the printed one and the difference."""
    cells, facts = [label], []
    for average in AVERAGES:
        theirs = getattr(printed, average) if printed else None
        entry = ours[average] if ours else None
        gap = entry["mean"] - theirs if entry and theirs is not None else None
        cells += [spread(entry) if entry else NOT_RUN, number(theirs), number(gap, sign=True)]
        facts.append(
            {
                "variant": name,
                "label": label,
                "score": f"f1_{average}",
                "mean": entry and entry["mean"],
                "sd": entry and entry["sd"],
                "paper": theirs,
                "difference": gap,
            }
            | more
        )
    return tuple(cells), facts


def untrained_note(numbers: Mapping, names: Iterable[str]) -> tuple[str, ...]:
    """What "did not train" means, with the scores of the rows that did not; none where all did."""
    facts = numbers["training"]
    found = {name: facts["rows"][name] for name in names if name in facts["rows"]}
    rows = [
        f"{name} {number(row['dev_weighted'])} of {number(row['reference'])}"
        for name, row in found.items()
        if not row["trained"]
    ]
    if not rows:
        return ()
    return (
        f"{UNTRAINED.capitalize()}: the best weighted F1 on dev stays more than "
        f"{facts['margin']:g} below what logistic regression (for PM+MO also M+MO) reaches there: "
        f"{'; '.join(rows)}. Such a row says nothing about its system.",
    )
