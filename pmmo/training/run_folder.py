"""The folder of a trained variant: scores, curves, predictions, the best model and its card."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

import torch
from safetensors.torch import save

from pmmo.config.settings import Settings, save_settings
from pmmo.core.names import AVERAGES, COMPARISON, CURVES, NOT_MEASURED
from pmmo.core.writing import growing_folder, write_bytes, write_json, write_text
from pmmo.data.movies import Movies
from pmmo.model.build import build_system
from pmmo.model.systems import System
from pmmo.training.loop import Cycle, Splits, Summary, sizes_of
from pmmo.training.model_card import model_card

COLUMNS = ("cycle", "epoch", *CURVES)


class RunSummary(TypedDict):
    """summary.json."""

    name: str
    label: str
    rows: dict[str, int]  # movies of each split
    parameters: int
    random_weights: int
    cycles: list[Summary]


def unite(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One description of the machines that trained a row: differing entries are joined by +."""
    united = {}
    for key in machines[0]:
        values = list(dict.fromkeys(machine[key] for machine in machines))
        united[key] = values[0] if len(values) == 1 else " + ".join(map(str, values))
    return united


def empty_system(settings: Settings, splits: Splits) -> System:
    """The system without memory or values, for counting."""
    with torch.device("meta"), torch.random.fork_rng():
        return build_system(settings, sizes_of(splits))


def write_run(
    settings: Settings,
    cycles: list[Cycle],
    splits: Splits,
    environment: dict[str, Any],
    movies: Movies,
    output: Path,
) -> RunSummary:
    """The files of a row, under a temporary name first; returns the summary."""
    system = empty_system(settings, splits)
    summary: RunSummary = {
        "name": settings.name,
        "label": settings.label,
        "rows": {name: len(batch.text) for name, batch in splits.items()},
        "parameters": sum(p.numel() for p in system.parameters()),
        "random_weights": getattr(system.fusion, "random_weights", 0),
        "cycles": [cycle.summary for cycle in cycles],
    }
    best = max(cycles, key=lambda cycle: cycle.summary["dev"]["weighted"])
    description = describe_model(settings, splits, best) | describe_data(movies)
    card = model_card(settings, summary["rows"], summary["cycles"], best.summary, movies)
    with growing_folder(output) as folder:
        save_settings(settings, folder / "settings.json")
        write_json(folder / "summary.json", summary)
        write_json(folder / "environment.json", environment)
        write_curves(folder / "curves.csv", cycles)
        for cycle in cycles:
            number = cycle.summary["cycle"]
            write_bytes(folder / f"predictions-{number}.safetensors", save(cycle.predictions))
            if cycle.protocols:
                write_bytes(folder / f"protocols-{number}.safetensors", save(cycle.protocols))
        write_bytes(folder / "model.safetensors", save(best.state))
        write_text(folder / "model.json", json.dumps(description, indent=1))
        write_text(folder / "README.md", card)
    return summary


def describe_model(settings: Settings, splits: Splits, best: Cycle) -> dict[str, Any]:
    """What it takes to rebuild the best cycle's model: settings and sizes."""
    return {
        "settings": asdict(settings),
        "sizes": sizes_of(splits)._asdict(),
        "cycle": best.summary["cycle"],
        "epoch": best.summary["best_epoch"],
        "dev": best.summary["dev"],
    }


def describe_data(movies: Movies) -> dict[str, Any]:
    """What a prediction must know of the data: genres in the order of the outputs, text, origin."""
    return {
        "genres": list(movies.genre_names),
        "nan_text": movies.nan_text["policy"],
        "provenance": dict(movies.provenance),
    }


def write_curves(path: Path, cycles: list[Cycle]) -> None:
    """Scores and loss terms of every cycle and epoch, as CSV."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for cycle in cycles:
        writer.writerows(cycle.curves)
    write_text(path, table.getvalue())


def write_experiment(run: Path, reports: Path) -> None:
    """Metrics and mean curves of the system under study, for DVC.

    `experiment.json` holds the four F-scores on test and the weighted one on dev, means over the
    cycles; `experiment_curves.csv` the weighted F1 of each epoch, mean over the cycles. The
    comparison of what was trained before no longer holds; the stage `comparison` makes it anew.
    """
    import pandas as pd  # here alone: importing it costs every other row half a second

    cycles = json.loads((run / "summary.json").read_text(encoding="utf-8"))["cycles"]
    scores = {f"f1_{name}": fmean(cycle["test"][name] for cycle in cycles) for name in AVERAGES}
    scores["dev_f1_weighted"] = fmean(cycle["dev"]["weighted"] for cycle in cycles)
    curves = pd.read_csv(run / "curves.csv", encoding="utf-8")
    means = curves.groupby("epoch")[["dev_weighted", "train_weighted", "loss"]].mean()
    write_text(reports / "experiment_curves.csv", means.round(6).to_csv(lineterminator="\n"))
    write_json(reports / "experiment.json", scores)
    write_json(reports / COMPARISON.name, NOT_MEASURED)
