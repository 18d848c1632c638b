"""Finished runs and the extracted movies, read from disk into frozen values.

Shapes: N movies of a split, G genres. A run is one variant, with one entry per cycle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from pmmo.core.errors import PmmoError
from pmmo.core.names import AVERAGES, CURVES, EXPERIMENT
from pmmo.core.text import name as shown


@dataclass(frozen=True)
class Movies:
    """The true labels and the origin of the data."""

    ids: tuple[str, ...]
    genres: tuple[str, ...]
    splits: Mapping[str, tuple[int, int]]  # split -> [start, stop)
    labels: np.ndarray  # (all movies, G) 0/1
    provenance: Mapping[str, object]
    nan_text: Mapping[str, object]
    unlabelled: int

    def truth(self, split: str) -> np.ndarray:
        """(N, G) labels of one split."""
        return self.labels[slice(*self.splits[split])]


@dataclass(frozen=True)
class Cycle:
    """The scores of one cycle of training and testing, from its training stage."""

    cycle: int
    seed: int
    best_epoch: int  # counted from 1
    dev: Mapping[str, float]  # average -> F1
    test: Mapping[str, float]
    test_per_genre: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One variant: settings, scores of its cycles, learning curves and hardware."""

    name: str
    label: str
    folder: Path
    settings: Mapping[str, Any]
    rows: Mapping[str, int]
    parameters: int
    random_weights: int
    cycles: tuple[Cycle, ...]
    curves: pd.DataFrame  # cycle, epoch, then CURVES
    environment: Mapping[str, Any]

    @property
    def threshold(self) -> float:
        """Probability above which a genre is assigned."""
        return float(self.settings["threshold"])

    @property
    def trains_on_dev(self) -> bool:
        """Whether dev is part of training, so that its scores on dev say nothing."""
        return self.settings.get("train_on") == "train+dev"

    def predictions(self, key: str) -> np.ndarray | None:
        """Probabilities `key` of every cycle, (cycles, N, G), or None if the run has none."""
        return self._of_cycles("predictions", key)

    def replayed(self, key: str) -> np.ndarray | None:
        """Those that choose nothing, for the protocols alone; None where they were not stored.

        `test_epochs` (cycles, epochs, N, G) of each epoch, `test_other_statistics` (cycles, N, G).
        """
        stored = self.settings.get("epoch_predictions")
        return self._of_cycles("protocols", key) if stored else None

    def _of_cycles(self, stem: str, key: str) -> np.ndarray | None:
        found = [self._prediction(f"{stem}-{cycle.cycle}", key) for cycle in self.cycles]
        present = [array for array in found if array is not None]
        if not present:
            return None
        if len(present) < len(found):
            raise PmmoError(
                f"{self.folder}: only some cycles have the predictions {key!r}. "
                f"Train the row again: dvc repro -f {stage_of(self.name)}"
            )
        return np.stack(present)

    def probabilities(self, split: str) -> np.ndarray:
        """(cycles, N, G) of a split at the row's own prediction."""
        found = self.predictions(split)
        if found is None:
            raise unreadable(self.folder, self.name, f"no predictions of {split}")
        return found

    def _prediction(self, stem: str, key: str) -> np.ndarray | None:
        path = self.folder / f"{stem}.safetensors"
        try:
            with safe_open(path, framework="numpy") as file:
                return file.get_tensor(key) if key in file.keys() else None  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise unreadable(path, self.name, error) from error


def stage_of(row: str) -> str:
    """DVC's name for the stage that trains a row."""
    return row if row == EXPERIMENT else f"train@{row}"


def unreadable(path: Path, variant: str, reason: object) -> PmmoError:
    """The error for a missing or damaged file of a run."""
    return PmmoError(
        f"{path}: cannot be read ({reason}). "
        f"Train the row again (dvc repro -f {stage_of(variant)}) or remove it from params.yaml."
    )


def read_movies(folder: Path) -> Movies:
    """The movies that `extract` wrote to `folder` (movies.json, genres.safetensors)."""
    try:
        facts = json.loads((folder / "movies.json").read_text(encoding="utf-8"))
        labels = load_file(folder / "genres.safetensors")["genres"]
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise PmmoError(f"{folder}: no readable movies ({error}). Run dvc repro extract.") from None
    return Movies(
        ids=tuple(facts["ids"]),
        genres=tuple(map(shown, facts["genres"])),
        splits={name: (bounds[0], bounds[1]) for name, bounds in facts["splits"].items()},
        labels=labels,
        provenance=visible(facts["provenance"]),
        nan_text=facts["nan_text"],
        unlabelled=facts["unlabelled"],
    )


def visible(facts: Mapping[str, object]) -> dict[str, object]:
    """The same with its texts made fit to show."""
    return {key: shown(value) if isinstance(value, str) else value for key, value in facts.items()}


def read_run(folder: Path, name: str, label: str) -> Run:
    try:
        settings, summary, environment = (
            json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
            for stem in ("settings", "summary", "environment")
        )
        curves = pd.read_csv(folder / "curves.csv")
    except (OSError, ValueError) as error:
        raise unreadable(folder, name, error) from error
    absent = [column for column in ("cycle", "epoch", *CURVES) if column not in curves]
    if absent:
        raise unreadable(folder / "curves.csv", name, f"no column {', '.join(absent)}")
    return Run(
        name=name,
        label=shown(label),
        folder=folder,
        settings=visible(settings),
        rows=summary["rows"],
        parameters=summary["parameters"],
        random_weights=summary["random_weights"],
        cycles=tuple(read_cycle(entry) for entry in summary["cycles"]),
        curves=curves,
        environment=visible(environment),
    )


def read_cycle(entry: Mapping) -> Cycle:
    """From an entry of `cycles` in summary.json."""
    return Cycle(
        cycle=entry["cycle"],
        seed=entry["seed"],
        best_epoch=entry["best_epoch"],
        dev={average: entry["dev"][average] for average in AVERAGES},
        test={average: entry["test"][average] for average in AVERAGES},
        test_per_genre=tuple(entry["test_per_genre"]),
    )


def read_runs(folder: Path, variants: Sequence[tuple[str, str]]) -> dict[str, Run]:
    """The runs of the (name, label) pairs, in their order; other folders are not opened."""
    runs = {name: read_run(folder / name, name, label) for name, label in variants}
    if all(run.trains_on_dev for run in runs.values()):
        raise PmmoError(
            "params.yaml: `variants` names no row that leaves dev out of training, so there is "
            "nothing to report."
        )
    check_pairing(runs)
    return runs


def check_pairing(runs: Mapping[str, Run]) -> None:
    """Raise unless cycle k has one seed and all runs have the same movies (needed for pairing)."""
    first, *others = runs.values()
    for run in others:
        if split_sizes(run) != split_sizes(first):
            raise PmmoError(
                f"{run.folder}: {split_sizes(run)} movies, but {first.name} has "
                f"{split_sizes(first)}; "
                f"rows trained on different data cannot be compared. Run dvc repro."
            )
        if [c.seed for c in run.cycles] != [c.seed for c in first.cycles]:
            raise PmmoError(
                f"{run.folder}: other seeds or another number of cycles than {first.name}; "
                f"differences are paired by cycle. Give both rows the same seed and cycles "
                f"in params.yaml."
            )


def split_sizes(run: Run) -> dict[str, int]:
    """The movies of each split as the data has them, also where a row trained on two of them."""
    sizes = dict(run.rows)
    if run.trains_on_dev:
        sizes["train"] -= sizes["dev"]
    return sizes
