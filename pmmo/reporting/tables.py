"""All tables of the reports, from the aggregated numbers; here those that have no module else."""

from collections.abc import Mapping

import pandas as pd

from pmmo.core.names import AVERAGES
from pmmo.published import paper
from pmmo.reporting.abstention import abstention, missing_inputs
from pmmo.reporting.formats import Table, hardware, interval, number, row_label, spread
from pmmo.reporting.protocols import protocols
from pmmo.reporting.score_tables import sanity, table1, table2, table_released
from pmmo.reporting.verdict_tables import budget, claims, power, power_check, steps


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
            *("System", "s/epoch", "paper (K80)", "× GMU", "paper"),
            *("Parameters", "Random weights", "Total s"),
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
    *(claims, protocols, steps, power, power_check, table1, table2, table_released, sanity),
    *(budget, calibration, abstention, missing_inputs, gate, beyond, costs),
)
