"""Train one row and write its folder, `runs/<row>`."""

import os
import time
from pathlib import Path

import torch

from pmmo.config.engine import Engine
from pmmo.config.settings import Settings, load_settings
from pmmo.core.cores import WORKERS, usable_cores
from pmmo.core.errors import PmmoError
from pmmo.core.inputs import Inputs
from pmmo.core.lock import alone
from pmmo.core.names import SPLITS
from pmmo.data.movies import load_movies
from pmmo.model.systems import Batch
from pmmo.training.cycle_store import cycle_key, load_machines
from pmmo.training.cycles import run_cycles
from pmmo.training.device import choose_device, prepare_process
from pmmo.training.finished_rows import drop_recorded, mark_finished
from pmmo.training.loop import Splits
from pmmo.training.ray_tasks import connected
from pmmo.training.run_folder import RunSummary, unite, write_run

STORE = Path(".work/cycles")  # finished cycles of rows that DVC has not got yet
LOCKS = Path(".work/rows")


def train_row(
    settings_file: Path,
    data: Path,
    output: Path,
    engine: Engine | None = None,
    inputs: Inputs | None = None,
) -> RunSummary:
    """Train the row of a settings file on the tensors in `data`; returns its summary.

    `output` appears whole or not at all. Finished cycles survive a kill and are taken up again,
    by this engine or another; without an engine they run on this machine. Raises PmmoError if
    `inputs`, by default settings and data, do not stay what they were.
    """
    start = time.perf_counter()
    inputs = inputs or Inputs.of([settings_file, data])
    asked_workers()
    check_place(output)
    settings = load_settings(settings_file)
    busy = f"{settings.name}: another process trains this row"
    with alone(LOCKS / f"{settings.name}.lock", busy):
        drop_recorded(STORE)
        store = STORE / cycle_key(settings, data)
        movies = load_movies(data)
        if engine is None or engine.address is None:
            device = choose_device(settings.device)
            prepare_process(device, settings.precision)
            splits = load_splits(data, device, settings.train_on)
            inputs.check()  # the key of the store is that of what is loaded
            cycles = run_cycles(settings, splits, store, number_of_workers(settings, device))
        else:
            splits = load_splits(data, torch.device("cpu"), settings.train_on)
            with connected(engine, settings.device) as cluster:
                inputs.check()  # the code, too, has travelled
                cycles = run_cycles(settings, splits, store, cluster.slots, cluster)
        environment = unite(load_machines(store)) | {
            "seconds_per_epoch": [cycle.seconds_per_epoch for cycle in cycles],
            "seconds_total": time.perf_counter() - start,
        }
        inputs.check()
        summary = write_run(settings, cycles, splits, environment, movies, output)
        mark_finished(store, output)
    return summary


def check_place(output: Path) -> None:
    """PmmoError if DVC could not save `output`: it takes nothing from behind a link."""
    for folder in output.parents:
        if folder.is_symlink() and not folder.is_absolute():
            raise PmmoError(
                f"{folder}: is a link, and DVC saves nothing that lies behind one. Put a folder in "
                "its place; `dvc cache dir /large/disk` puts what takes the space elsewhere."
            )


def load_splits(data: Path, device: torch.device, train_on: str = "train") -> Splits:
    """The three sets on the device, genres as float32; PmmoError for a set of one movie.

    With `train_on` = "train+dev" the movies of dev follow those of train there, too. All are
    copies: training would see a file that is edited in its place.
    """
    movies = load_movies(data)
    splits = {}
    for name in SPLITS:
        text, image, genres = movies.split(name)
        if len(text) < 2:
            raise PmmoError(
                f"{data}: {name} has one movie, and batch norm needs two. Give the file's split "
                f"{name!r} more movies."
            )
        text, image = (column.to(device, copy=True) for column in (text, image))
        splits[name] = Batch(text, image, genres.to(device).float())
    if train_on == "train+dev":
        pairs = zip(splits["train"], splits["dev"], strict=True)
        splits["train"] = Batch(*(torch.cat(pair) for pair in pairs))
    return splits


def asked_workers() -> int | None:
    """The number in the environment, if it is set; PmmoError if it is none."""
    text = os.environ.get(WORKERS)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise PmmoError(f"{WORKERS} is {text!r}; expected a whole number from 1 up, or unset it")
    return int(text)


def number_of_workers(settings: Settings, device: torch.device) -> int:
    """One process per core, or as asked, on a CPU, at most one per cycle; one on a GPU."""
    if device.type != "cpu":
        return 1
    return min(settings.cycles, asked_workers() or usable_cores())
