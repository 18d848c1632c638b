"""The table of the sanity rows: what one column, or both without fusion, score."""

from collections.abc import Mapping

import pandas as pd

from pmmo.core.names import AVERAGES
from pmmo.published import paper
from pmmo.reporting.formats import Table, number
from pmmo.reporting.tables import score_rows, untrained_note

ROWS = [name for name in paper.AREVALO if not name.startswith("logistic")]
LABELS = {
    "text": "Logistic regression, text",
    "image": "Logistic regression, image",
    "both": "Logistic regression, both",
}


def sanity(numbers: Mapping) -> Table:
    """F-scores of the GMU, of its classifier alone and of logistic regression."""
    rows, facts = score_rows(numbers, ROWS, paper.AREVALO)
    lines = [regression(numbers, inputs) for inputs in LABELS]
    cells = [cells for cells, _ in lines]
    return Table(
        "sanity",
        "Sanity rows: one column, or both without fusion",
        ("System", *(text for _ in AVERAGES for text in ("ours", "printed", "diff."))),
        (*rows, *cells),
        pd.concat([facts, *(frame for _, frame in lines)], ignore_index=True),
        (
            "Ours: test F-score, mean ± standard deviation over the cycles. Printed: Arevalo et "
            "al. 2017, the GMU paper; diff.: ours minus theirs. The maxout MLP is the GMU's "
            "classifier without its fusion. Logistic regression (one-vs-rest, standardised) is "
            "deterministic: it has no cycles and no spread.",
            *untrained_note(numbers, ROWS),
        ),
        (("", 1), *((average.capitalize(), 3) for average in AVERAGES)),
    )


def regression(numbers: Mapping, inputs: str) -> tuple[tuple[str, ...], pd.DataFrame]:
    """Cells and facts of logistic regression on some columns."""
    name = f"logistic-{inputs}"
    printed = paper.AREVALO.get(name)
    line, facts = [LABELS[inputs]], []
    for average in AVERAGES:
        ours = numbers["logistic"][inputs][average]
        theirs = getattr(printed, average) if printed else None
        gap = ours - theirs if theirs is not None else None
        line += [number(ours), number(theirs), number(gap, sign=True)]
        facts.append(
            {"variant": name, "label": LABELS[inputs], "score": f"f1_{average}", "mean": ours}
            | {"paper": theirs, "difference": gap, "cycles": 0}
        )
    return tuple(line), pd.DataFrame(facts)
