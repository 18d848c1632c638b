"""The tables of the reports, made from the aggregated numbers."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from pmmo import paper
from pmmo.appendix import beyond, calibration, costs, gate
from pmmo.formats import Table, interval, is_synthetic, number, spread
from pmmo.metrics import AVERAGES

NOT_RUN = "not run"
DIGITS = {"F1": 3, "genres": 0, "epochs": 1, "ratio": 2}
VERDICTS = {  # verdict -> how several are counted
    "holds": "hold",
    "does not hold": "do not hold",
    "undecided": "undecided",
    "not run": "not run",
}
CLAIM_FACTS = (
    *("key", "statement", "where", "measure", "unit", "paper"),
    *("ours", "low", "high", "threshold", "verdict"),
)
SYNTHETIC_VERDICTS = (
    "The data is synthetic: these verdicts say that the pipeline works, and nothing about the "
    "paper."
)


def score_rows(
    numbers: Mapping, names: Sequence[str], printed: Mapping[str, paper.Row]
) -> tuple[list[tuple[str, ...]], pd.DataFrame]:
    """Cells and frame: per F-score ours, the paper's and the difference."""
    cells, facts = [], []
    for name in names:
        variant = numbers["variants"].get(name)
        label = variant["label"] if variant else printed[name].label
        line = [label]
        for average in AVERAGES:
            theirs = getattr(printed[name], average) if name in printed else None
            entry = numbers["scores"][name]["test"][average] if variant else None
            gap = entry["mean"] - theirs if variant and theirs is not None else None
            line += [
                spread(entry) if variant else NOT_RUN,
                number(theirs),
                number(gap, sign=True),
            ]
            facts.append(
                {
                    "variant": name,
                    "label": label,
                    "score": f"f1_{average}",
                    "mean": entry and entry["mean"],
                    "sd": entry and entry["sd"],
                    "paper": theirs,
                    "difference": gap,
                    "cycles": len(variant["seeds"]) if variant else 0,
                }
            )
        cells.append(tuple(line))
    return cells, pd.DataFrame(facts)


def score_table(name: str, title: str, first: str, printed: Callable, notes=()) -> Callable:
    """A maker of one of the three score tables; `printed(numbers)` gives its rows."""

    def make(numbers: Mapping) -> Table:
        names, theirs = printed(numbers)
        rows, frame = score_rows(numbers, names, theirs)
        if not theirs:  # nothing to compare with
            rows = [(line[0], *line[1::3]) for line in rows]
            header = (first, *(average.capitalize() for average in AVERAGES))
            groups = (("", 1), ("Test F-score, ours", len(AVERAGES)))
            return Table(name, title, header, tuple(rows), frame, OURS + tuple(notes), groups)
        header = (first, *(text for _ in AVERAGES for text in ("ours", "paper", "diff.")))
        groups = (("", 1), *((average.capitalize(), 3) for average in AVERAGES))
        return Table(name, title, header, tuple(rows), frame, SCORE_NOTES + tuple(notes), groups)

    return make


OURS = ("Mean ± standard deviation over the cycles.",)
SCORE_NOTES = (
    "Ours: test F-score, mean ± standard deviation over the cycles. Diff.: ours minus the paper's.",
)
table1 = score_table(
    "table1",
    "Table 1. F-scores for PM+MO and the GMU baseline",
    "System",
    lambda numbers: (list(paper.TABLE1), paper.TABLE1),
)
table2 = score_table(
    "table2",
    "Table 2. Ablation for PM+MO",
    "Specification",
    lambda numbers: (list(paper.TABLE2), paper.TABLE2),
)
table_released = score_table(
    "table_released",
    "Rows beyond Tables 1 and 2: the released code, the literal reading, other baselines",
    "System",
    lambda numbers: ([name for name in numbers["variants"] if name not in paper.ROWS], {}),
    ("The paper prints no F-scores for these rows.",),
)


def claims(numbers: Mapping) -> Table:
    """Each claim of the paper with its measure, interval and verdict."""
    rows, facts = [], []
    for claim in numbers["claims"]:
        digits, sign = DIGITS[claim["unit"]], claim["unit"] in ("F1", "epochs")
        bounds = interval(claim, 1 if claim["unit"] == "genres" else digits, sign)
        absent = f" (absent: {', '.join(claim['absent'])})" if claim["absent"] else ""
        rows.append(
            (
                claim["statement"] + absent,
                claim["verdict"],
                number(claim["ours"], digits, sign),
                bounds,
                number(claim["paper"], digits, sign),
                claim["measure"],
                claim["where"],
            )
        )
        facts.append({key: claim[key] for key in CLAIM_FACTS})
    tally = [
        f"{sum(c['verdict'] == verdict for c in numbers['claims'])} {plural}"
        for verdict, plural in VERDICTS.items()
    ]
    notes = (
        f"Verdicts: {', '.join(tally)}.",
        f"A claim holds when its whole {numbers['intervals']['level']:.0%} interval lies above 0 "
        "(genres: above half of them; ratio: above 1), does not hold when it lies below, and is "
        "undecided otherwise. Differences are paired by movie and by cycle; the interval covers "
        "both sources of chance. Definitions: docs/claims.md.",
    )
    if is_synthetic(numbers):
        notes = (SYNTHETIC_VERDICTS, *notes)
    return Table(
        "claims",
        "The paper's claims",
        ("Claim", "Verdict", "Ours", "Interval", "Paper", "Measure", "Where"),
        tuple(rows),
        pd.DataFrame(facts),
        notes,
    )


TABLES = (claims, table1, table2, table_released, calibration, gate, beyond, costs)
