"""The tables behind the tables: calibration, gates, cheap additions and costs."""

from collections.abc import Mapping

import pandas as pd

from pmmo import paper
from pmmo.formats import Table, interval, number, spread
from pmmo.metrics import AVERAGES


def calibration(numbers: Mapping) -> Table:
    """NLL, Brier score and calibration error of every row."""
    rows, facts = [], []
    for name, kinds in numbers["calibration"].items():
        for kind, entry in kinds.items():
            label = numbers["variants"][name]["label"]
            rows.append(
                (
                    label,
                    "K posterior samples" if kind == "samples" else "row's own",
                    *(spread(entry[measure], 4) for measure in ("nll", "brier", "ece")),
                )
            )
            facts.append(
                {"variant": name, "prediction": kind}
                | {f"{m}_{s}": entry[m][s] for m in ("nll", "brier", "ece") for s in ("mean", "sd")}
            )
    return Table(
        "calibration",
        "Calibration on the test movies",
        ("System", "Prediction", "NLL", "Brier", "ECE"),
        tuple(rows),
        pd.DataFrame(facts),
        (
            "Every (movie, genre) pair is one forecast. NLL in nats per pair; ECE: expected "
            "calibration error over 15 equal bins. Mean ± standard deviation over the cycles; "
            "smaller is better.",
        ),
    )


def gate(numbers: Mapping) -> Table:
    """Weighted F1 with one input at its training mean, beside the mean gate."""
    rows, facts = [], []
    kinds = ("both", "text only", "image only")
    for name, entry in numbers["ablation"].items():
        gates = numbers["gates"][name]
        rows.append(
            (
                numbers["variants"][name]["label"],
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
    """Seconds per epoch of every row, their ratio to the GMU's, and sizes."""
    rows, facts = [], []
    base = paper.SECONDS_PER_EPOCH["gmu"]
    for name, cost in numbers["costs"].items():
        theirs = paper.SECONDS_PER_EPOCH.get(name)
        rows.append(
            (
                numbers["variants"][name]["label"],
                spread(cost, 2),
                number(theirs, 2),
                number(cost["ratio"], 2),
                number(theirs / base if theirs else None, 2),
                f"{cost['parameters']:,}",
                f"{cost['random_weights']:,}",
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
                "parameters": cost["parameters"],
                "random_weights": cost["random_weights"],
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
            "The paper's are of one Tesla K80 at its full sizes; compare the ratios.",
        ),
    )


def beyond(numbers: Mapping) -> Table:
    """Ensembles, samples and thresholds on stored predictions."""
    rows, facts = [], []
    for entry in numbers["beyond"]:
        label = numbers["variants"][entry["variant"]]["label"]
        switches = " + ".join(entry["switches"]) or "as it is"
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
            | {key: entry[key] for key in ("gain", "low", "high", "chosen")}
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
        ),
    )
