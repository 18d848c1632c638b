"""The tables of the reports, from the aggregated numbers; those behind verdicts are in
`verdict_tables.py`."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from pmmo.core.names import AVERAGES
from pmmo.published import paper
from pmmo.reporting.abstention import abstention, missing_inputs
from pmmo.reporting.formats import (
    UNTRAINED,
    Table,
    hardware,
    interval,
    number,
    row_label,
    spread,
)
from pmmo.reporting.protocols import protocols
from pmmo.reporting.verdict_tables import budget, claims, power, power_check, steps

NOT_RUN = "not run"


def score_rows(
    numbers: Mapping, names: Sequence[str], printed: Mapping[str, paper.Row]
) -> tuple[list[tuple[str, ...]], pd.DataFrame]:
    """Cells and frame: for each F-score our value, the paper's and the difference."""
    cells, facts = [], []
    for name in names:
        variant = numbers["variants"].get(name)
        label = row_label(numbers, name) if variant else printed[name].label
        line = [label]
        for average in AVERAGES:
            theirs = getattr(printed[name], average) if name in printed else None
            entry = numbers["scores"][name]["test"][average] if variant else None
            gap = entry["mean"] - theirs if entry and theirs is not None else None
            line += [
                spread(entry) if entry else NOT_RUN,
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
                    "trained": numbers["training"]["rows"][name]["trained"] if variant else None,
                }
            )
        cells.append(tuple(line))
    return cells, pd.DataFrame(facts)


def untrained_note(numbers: Mapping, names: Sequence[str]) -> tuple[str, ...]:
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


def score_table(name: str, title: str, first: str, printed: Callable, notes=()) -> Callable:
    """A function that makes one of the three score tables; `printed(numbers)` has its rows."""

    def make(numbers: Mapping) -> Table:
        names, theirs = printed(numbers)
        more = (*notes, *untrained_note(numbers, names))
        rows, frame = score_rows(numbers, names, theirs)
        if not theirs:  # no published score to compare with
            rows = [(line[0], *line[1::3]) for line in rows]
            header = (first, *(average.capitalize() for average in AVERAGES))
            groups: tuple[tuple[str, int], ...] = (("", 1), ("Test F-score, ours", len(AVERAGES)))
            return Table(name, title, header, tuple(rows), frame, OURS + more, groups)
        header = (first, *(text for _ in AVERAGES for text in ("ours", "paper", "diff.")))
        groups = (("", 1), *((average.capitalize(), 3) for average in AVERAGES))
        return Table(name, title, header, tuple(rows), frame, SCORE_NOTES + more, groups)

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
    lambda numbers: (
        [name for name in numbers["variants"] if name not in paper.ROWS | paper.AREVALO],
        {},
    ),
    ("The paper prints no F-scores for these rows.",),
)


def calibration(numbers: Mapping) -> Table:
    """NLL, Brier score and calibration error of every variant."""
    words = {
        "prediction": "row's own",
        "calibrated": "row's own, calibrated",
        "samples": "K posterior samples",
    }
    rows, facts = [], []
    for name, kinds in numbers["calibration"].items():
        for kind, entry in kinds.items():
            label = row_label(numbers, name)
            rows.append(
                (
                    label,
                    words[kind],
                    *(spread(entry[measure], 4) for measure in ("nll", "brier", "ece")),
                    spread(entry["temperature"], 2) if kind == "calibrated" else "–",
                )
            )
            facts.append(
                {"variant": name, "prediction": kind}
                | {f"{m}_{s}": entry[m][s] for m in ("nll", "brier", "ece") for s in ("mean", "sd")}
                | {"temperature": entry["temperature"]["mean"] if kind == "calibrated" else None}
            )
    return Table(
        "calibration",
        "Calibration on the test movies",
        ("System", "Prediction", "NLL", "Brier", "ECE", "Temperature"),
        tuple(rows),
        pd.DataFrame(facts),
        (
            "Every (movie, genre) pair is one forecast. NLL in nats per pair; ECE: expected "
            "calibration error over 15 equal bins. Mean ± standard deviation over the cycles; "
            "smaller is better. Calibrated: the logits divided by one temperature for each cycle, "
            "of the smallest NLL on dev.",
        ),
    )


def gate(numbers: Mapping) -> Table:
    """Weighted F1 with one input replaced by its training mean, and the mean gate."""
    rows, facts = [], []
    kinds = ("both", "text only", "image only")
    for name, entry in numbers["ablation"].items():
        gates = numbers["gates"][name]
        rows.append(
            (
                row_label(numbers, name),
                *(spread(entry[kind]) if kind in entry else "–" for kind in kinds),
                spread(gates["overall"]) if gates else "–",
            )
        )
        facts.append(
            {"variant": name}
            | {kind.replace(" ", "_"): entry.get(kind, {}).get("mean") for kind in kinds}
            | {"gate": gates["overall"]["mean"] if gates else None}
        )
    return Table(
        "gate",
        "What the systems look at: test weighted F1 without one input, and the mean gate",
        ("System", "Text and image", "Text only", "Image only", "Mean gate"),
        tuple(rows),
        pd.DataFrame(facts),
        (
            "Text only: the image column replaced by its training mean at test time, and the "
            "reverse; nothing is retrained. Gate: 1 leans on the image, 0 on the text, mean over "
            "hidden units and test movies. Mean ± standard deviation over the cycles.",
        ),
    )


def costs(numbers: Mapping) -> Table:
    """Seconds per epoch of every variant, their ratio to the GMU's, and sizes."""
    rows, facts = [], []
    clock, base = numbers["clock"], paper.SECONDS_PER_EPOCH["gmu"]
    for name, cost in clock["costs"].items():
        variant = numbers["variants"][name]
        theirs = paper.SECONDS_PER_EPOCH.get(name)
        rows.append(
            (
                row_label(numbers, name),
                spread(cost, 2),
                number(theirs, 2),
                number(cost["ratio"], 2),
                number(theirs / base if theirs else None, 2),
                f"{variant['parameters']:,}",
                f"{variant['random_weights']:,}",
                number(cost["seconds_total"], 0),
            )
        )
        facts.append(
            {
                "variant": name,
                "seconds_per_epoch": cost["mean"],
                "sd": cost["sd"],
                "paper": theirs,
                "ratio_to_gmu": cost["ratio"],
                "parameters": variant["parameters"],
                "random_weights": variant["random_weights"],
                "seconds_total": cost["seconds_total"],
            }
        )
    return Table(
        "costs",
        "Training cost",
        (
            "System",
            "s/epoch",
            "paper (K80)",
            "× GMU",
            "paper",
            "Parameters",
            "Random weights",
            "Total s",
        ),
        tuple(rows),
        pd.DataFrame(facts),
        (
            "Seconds per epoch: median of each cycle, mean ± standard deviation over the cycles. "
            "The paper's are of one Tesla K80 at its full sizes; compare the ratios. Rows are "
            "trained at different times, beside other work, so rows of equal size differ by the "
            "machine's load. No interval here covers that.",
            *map(in_words, clock["claims"]),
            f"Trained on {hardware(clock)}. These numbers change with every run.",
        ),
    )


def in_words(claim: Mapping) -> str:
    """A claim about costs, its verdict and its numbers in one sentence."""
    if claim["ours"] is None:
        return f"{claim['statement']}: {claim['verdict']}."
    ours, theirs = number(claim["ours"], 2), number(claim["paper"], 2)
    return (
        f"{claim['statement']}: {claim['verdict']}. {claim['measure'].capitalize()} {ours} "
        f"({interval(claim, 2)}); the paper's {theirs}."
    )


def beyond(numbers: Mapping) -> Table:
    """Scores of ensembles, samples and thresholds on the stored predictions."""
    rows, facts = [], []
    for entry in numbers["beyond"]:
        label = row_label(numbers, entry["variant"])
        switches = " + ".join(entry["switches"]) or "as it is"
        if entry["predict"]:
            switches = f"predict: {switches}"
        rows.append(
            (
                label,
                switches + (" (chosen)" if entry["chosen"] else ""),
                number(entry["dev"]),
                *(number(entry["test"][average]) for average in AVERAGES),
                number(entry["gain"], sign=True) if entry["switches"] else "–",
                interval(entry, 3, sign=True) if entry["switches"] else "–",
            )
        )
        facts.append(
            {"variant": entry["variant"], "switches": switches, "dev_weighted": entry["dev"]}
            | {f"test_{average}": entry["test"][average] for average in AVERAGES}
            | {key: entry[key] for key in ("gain", "low", "high", "chosen", "predict")}
        )
    return Table(
        "beyond",
        "Beyond the paper: what helps without training again",
        (
            *("System", "Addition", "Dev weighted"),
            *(average.capitalize() for average in AVERAGES),
            *("Gain", "Interval"),
        ),
        tuple(rows),
        pd.DataFrame(facts),
        (
            "Chosen: the highest weighted F1 on dev; the scores after it are of test. Ensemble: "
            "mean probability of the cycles' models. Thresholds: one per genre, of best F1 on "
            "dev; its dev score is cross-fitted over five folds. K samples: mean probability of "
            "K posterior samples. Gain: weighted F1 on test over the same row as it is, with a "
            "paired interval; how an ensemble would change with other seeds is not in it.",
            "predict: what `python -m pmmo predict` gives by default, to the last decision: batch "
            "norm by running statistics, the models that the run keeps, and the choice that it "
            "stored beside them.",
        ),
    )


TABLES = (
    *(claims, protocols, steps, power, power_check, table1, table2, table_released),
    *(budget, calibration, abstention, missing_inputs, gate, beyond, costs),
)
