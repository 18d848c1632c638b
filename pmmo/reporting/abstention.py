"""Abstention: risk against coverage as two tables and a figure."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from pmmo.reporting.formats import Table, interval, number, row_label, spread
from pmmo.reporting.style import SYSTEMS, Drawn, band, cycles, label, sheet, titled

SHOWN = (1.0, 0.9, 0.8, 0.5)  # coverages of the table; the figure's CSV has all
MEASURE = "likeliest genre"  # that of the missing inputs


def abstention(numbers: Mapping) -> Table:
    """Risk at some coverages, its area, and what abstaining on the most unsure movies buys."""
    facts = numbers["abstention"]
    places = [round(20 * coverage) - 1 for coverage in SHOWN]  # coverages are 5 %, 10 %, ...
    rows, frame = [], []
    for name, entry in facts["variants"].items():
        for order in entry["orders"]:
            risk = [{key: order["risk"][key][place] for key in ("mean", "sd")} for place in places]
            rows.append(
                (
                    row_label(numbers, name),
                    order["predictor"],
                    order["measure"],
                    *(spread(cell) for cell in risk),
                    spread(order["area"]),
                    number(order["gain"], sign=True),
                    interval(order, 3, sign=True),
                )
            )
            frame.append(
                {"variant": name, "predictor": order["predictor"], "measure": order["measure"]}
                | {
                    f"risk_at_{coverage:g}": cell["mean"]
                    for coverage, cell in zip(SHOWN, risk, strict=True)
                }
                | {"area": order["area"]["mean"]}
                | {key: order[key] for key in ("gain", "low", "high")}
            )
    share = f"{facts['answered']:.0%}"
    return Table(
        "abstention",
        "What abstaining on the most unsure movies buys",
        (
            *("System", "Predictor", "Unsure by"),
            *(f"Risk at {coverage:.0%}" for coverage in SHOWN),
            *("Area", f"Gain at {share}", "Interval"),
        ),
        tuple(rows),
        pd.DataFrame(frame),
        (
            "Risk at a coverage: mean of 1 − F1 of each movie (Eq. 7) over that share of the test "
            "movies, the least unsure ones; at 100% it is 1 − samples F1. Area: mean risk over all "
            "coverages; smaller is better. Mean ± standard deviation over the cycles.",
            "Unsure by: the mean binary entropy over the genres; 1 − the probability of the "
            "likeliest genre; or the disagreement of the cycles (mutual information of genre and "
            "cycle). The stored predictions have the mean of the posterior's samples alone, so "
            "the disagreement of the samples is not here.",
            f"Gain: risk of all movies minus risk of the {share} that are answered, with a paired "
            "interval; an ensemble is one model, and how it would change with other seeds is not "
            "known.",
        ),
    )


def missing_inputs(numbers: Mapping) -> Table:
    """Whether the systems notice that an input is missing: unsureness, coverage and risk."""
    facts = numbers["abstention"]
    rows, frame = [], []
    keys = ("entropy", "all", "answered", "answered_risk")
    for name, entry in facts["variants"].items():
        for kind, found in entry["inputs"].items():
            inputs = "text and image" if kind == "both" else kind
            rows.append((row_label(numbers, name), inputs, *(spread(found[key]) for key in keys)))
            frame.append(
                {"variant": name, "inputs": inputs}
                | {f"{key}_{part}": found[key][part] for key in keys for part in ("mean", "sd")}
            )
    return Table(
        "missing_inputs",
        "Abstention when the plot or the poster is missing",
        ("System", "Inputs", "Mean entropy", "Risk of all", "Answered", "Risk of the answered"),
        tuple(rows),
        pd.DataFrame(frame),
        (
            f"One limit per cycle: it answers {facts['answered']:.0%} of the dev movies with both "
            "inputs, by the probability of the likeliest genre. Answered: the share of the test "
            "movies within that limit. Text only: the image column replaced by its training mean, "
            "and the reverse. Mean entropy in nats per genre. Mean ± standard deviation over the "
            "cycles.",
        ),
    )


def risk_coverage(numbers: Mapping) -> Drawn:
    """Risk against coverage: by two measures of unsureness, and with one input missing."""
    facts = numbers["abstention"]
    names = [name for name in SYSTEMS if name in facts["variants"]]
    figure = sheet(7.4, 6.2, 0.8)
    grid = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    frames = []
    for axes, (title, measure, inputs) in zip(
        grid,
        (
            ("Text and image, by entropy", "entropy", "both"),
            (f"Text and image, by the {MEASURE}", MEASURE, "both"),
            (f"Text only, by the {MEASURE}", MEASURE, "text only"),
            (f"Image only, by the {MEASURE}", MEASURE, "image only"),
        ),
        strict=True,
    ):
        axes.set_title(title, size=8.5)
        axes.tick_params(labelbottom=True)
        for name in names:
            entry = facts["variants"][name]
            orders = (order for order in entry["orders"] if order["measure"] == measure)
            found = next(orders) if inputs == "both" else entry["inputs"].get(inputs)
            if found is None:
                continue
            colour, marker = SYSTEMS[name]
            mean, sd = band(found["risk"])
            coverage = np.array(facts["coverages"])
            axes.fill_between(coverage, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0)
            text = label(numbers, name)
            axes.plot(
                coverage, mean, color=colour, marker=marker, ms=3, markevery=3, lw=1.3, label=text
            )
            frames.append(
                pd.DataFrame(
                    {"variant": name, "inputs": inputs, "measure": measure, "coverage": coverage}
                    | {"risk": mean, "sd": found["risk"]["sd"]}
                )
            )
    top = max((float((frame["risk"] + frame["sd"].fillna(0)).max()) for frame in frames), default=1)
    grid[0].set(xlim=(0, 1), ylim=(0, min(1.0, 1.08 * top)))
    grid[0].xaxis.set_major_formatter(PercentFormatter(1))
    if names:
        grid[0].legend(loc="lower right", fontsize=8)
    figure.supxlabel("Coverage: share of the test movies that are answered", size=8.5)
    figure.supylabel("Risk: mean of 1 − F1 of the answered movies", size=8.5)
    titled(
        figure,
        numbers,
        "Risk against coverage",
        "A flat line would say that the unsure movies are no harder. "
        f"Mean ± sd over {cycles(numbers)} cycles.",
    )
    return figure, pd.concat(frames) if frames else pd.DataFrame()
