"""What habits of published scores are worth on this project's rows: a table and a figure."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pmmo.reporting.formats import UNTRAINED, Table, interval, is_synthetic, number, unique
from pmmo.reporting.style import INK, SYSTEMS, Drawn, canvas, cycles, list_down, shorter, titled

SHORT = {"gmu": "GMU", "mmo": "M+MO", "pmmo-kl-l2": "PM+MO"}  # row -> its column
NOT_RUN = {"word": "not run", "why": "the row is not in params.yaml"} | dict.fromkeys(
    ("gain", "low", "high")
)
STATISTICS = {"evaluation_set": "those of the test set", "running": "the running ones"}


def labels(numbers: Mapping) -> dict[str, str]:
    """What each habit changes."""
    low, count = f"{numbers['protocols']['low']:g}", cycles(numbers)
    return {
        "test-epoch": "Epoch chosen on test",
        "train-dev": "Trained on train and dev",
        "low-threshold": f"Threshold {low} instead of {used(numbers, 'threshold')}",
        "test-threshold": "One threshold chosen on test",
        "undefined-one": "An undefined F1 counts as 1 (macro F1)",
        "movies-dropped": "Test movies of some genres dropped",
        "best-seed": f"Best of {count} seeds instead of their mean",
        "evaluation-set": "Batch statistics of the test set instead of running ones",
        "together": f"Together: train and dev, epoch on test, {low}, undefined F1 as 1",
        "thresholds": "Honest: a threshold per genre, from dev",
        "ensemble": f"Honest: ensemble of {count} cycles",
        "both": "Honest: both of these",
    }


def used(numbers: Mapping, setting: str) -> str:
    """The values of a setting in the rows of the table."""
    rows = [numbers["variants"][row] for row in SHORT if row in numbers["variants"]]
    return unique([row["settings"].get(setting, "–") for row in rows])


def names(numbers: Mapping) -> dict[str, str]:
    """The columns, and which rows did not train."""
    judged = numbers["training"]["rows"]
    return {
        row: f"{short} ({UNTRAINED})" if row in judged and not judged[row]["trained"] else short
        for row, short in SHORT.items()
    }


def of_rows(habit: Mapping) -> dict[str, Mapping]:
    """What a habit does to each system, whether it was run or not."""
    return {row: habit["rows"].get(row, NOT_RUN) for row in SHORT}


def protocols(numbers: Mapping) -> Table:
    """Each habit and each honest improvement: the difference that it makes to each system."""
    texts, rows, frame = labels(numbers), [], []
    for habit in numbers["protocols"]["habits"]:
        cells = []
        for row, entry in of_rows(habit).items():
            cells += [entry["word"] or number(entry["gain"], sign=True)]
            cells += [interval(entry, 3, sign=True)]
            frame.append(
                {key: habit[key] for key in ("key", "average", "honest")}
                | {"variant": row}
                | {key: entry[key] for key in ("gain", "low", "high", "word", "why")}
            )
        rows.append((texts[habit["key"]], *cells))
    return Table(
        "protocols",
        "What a protocol is worth: habits of published scores, replayed here",
        ("Habit", *(text for _ in SHORT for text in ("difference", "interval"))),
        tuple(rows),
        pd.DataFrame(frame),
        notes(numbers, texts),
        (("", 1), *((name, 2) for name in names(numbers).values())),
    )


def notes(numbers: Mapping, texts: Mapping[str, str]) -> tuple[str, ...]:
    """How to read the table, and why some cells have words."""
    facts, level = numbers["protocols"], f"{numbers['intervals']['level']:.0%}"
    evaluation = unique(
        [STATISTICS.get(value, value) for value in used(numbers, "batch_norm_eval").split(", ")]
    )
    return (
        *(("The data is synthetic: other movies may give other sizes.",) * is_synthetic(numbers)),
        "Difference: weighted F1 on test with the habit minus without it, mean over the same "
        "cycles on the same movies, nothing else changed; the interval "
        f"({level}) covers cycles and movies, as that of a claim. What is chosen on test is chosen "
        f"again on each resampling of the movies; the threshold is one of {facts['candidates']}. "
        "Honest improvements choose on dev alone.",
        f"Batch statistics: rows here have {evaluation} by default. Best seed: the interval is of "
        "the expected lead over other seeds, for scores that are normal. An undefined F1 changes "
        "no weighted F1, because a genre without movies has no weight. Together: what one "
        "published program does (docs/published.md). Definitions: docs/protocols.md.",
        *reasons(facts["habits"], texts),
    )


def reasons(habits: list[Mapping], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Why a habit has no number, once for all systems that share the reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for habit in habits:
        for row, entry in of_rows(habit).items():
            if entry["word"]:
                key = (texts[habit["key"]], entry["word"], entry["why"])
                found.setdefault(key, []).append(SHORT[row])
    return tuple(
        f"{text}: {word} ({', '.join(rows)}): {why}."
        for (text, word, why), rows in found.items()
        if why != NOT_RUN["why"]
    )


def figure(numbers: Mapping) -> Drawn:
    """The same as a forest plot: a line per habit, a mark with its interval per system."""
    habits, texts = numbers["protocols"]["habits"], labels(numbers)
    figure, axes = canvas(8.2, 1.9 + 0.42 * len(habits), lines=2)
    shifts = dict(zip(SHORT, (-0.22, 0.0, 0.22), strict=True))
    axes.axvline(0, color=INK, lw=0.9)
    for row, name in names(numbers).items():
        colour, marker = SYSTEMS[row]
        entries = [of_rows(habit)[row] for habit in habits]
        gain, low, high = (
            np.array([entry[key] for entry in entries], dtype=float)
            for key in ("gain", "low", "high")
        )
        places = np.arange(len(habits)) + shifts[row]
        axes.hlines(places, low, high, color=colour, lw=1.8)
        axes.plot(gain, places, marker, color=colour, ms=5, label=name)
    for place, habit in enumerate(habits):
        words = [entry["word"] for entry in of_rows(habit).values()]
        for word in dict.fromkeys(filter(None, words)):
            first = place if all(words) else place + shifts[[*SHORT][words.index(word)]]
            axes.annotate(
                word, (0, first), (5, 0), textcoords="offset points", va="center", size=7.5
            )
    honest = [habit["honest"] for habit in habits].index(True)
    axes.axhline(honest - 0.5, color=INK, lw=0.7, ls=":")
    list_down(axes, [shorter(texts[habit["key"]], 40) for habit in habits])
    axes.set_xlabel("Difference of weighted F1 on test (macro F1 where a line says so)")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.2)
    titled(
        figure,
        numbers,
        "What a protocol is worth",
        f"F1 with a habit minus without, with {numbers['intervals']['level']:.0%} intervals over "
        f"movies and {cycles(numbers)} cycles. Below the dots: honest improvements.",
    )
    return figure, protocols(numbers).frame
