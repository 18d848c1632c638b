"""Train one row and write its folder, `runs/<row>`."""

import os
import shutil
import time
from pathlib import Path

import torch

from pmmo.config.engine import Engine
from pmmo.config.settings import Settings, load_settings
from pmmo.core.errors import PmmoError
from pmmo.core.names import SPLITS
from pmmo.data.movies import load_movies
from pmmo.model.systems import Batch
from pmmo.training.cycle_store import cycle_key, load_machines
from pmmo.training.cycles import run_cycles
from pmmo.training.device import choose_device, prepare_process
from pmmo.training.loop import Splits
from pmmo.training.ray_tasks import connected
from pmmo.training.run_folder import RunSummary, unite, write_run

STORE = Path(".work/cycles")  # finished cycles of unfinished rows
WORKERS = "PMMO_WORKERS"  # environment: cycles side by side on a CPU; changes no number


def train_row(
    settings_file: Path, data: Path, output: Path, engine: Engine | None = None
) -> RunSummary:
    """Train the row of a settings file on the tensors in `data`; returns its summary.

    `output` appears whole or not at all. Finished cycles survive a kill and are taken up again,
    by this engine or another; without an engine they run on this machine.
    """
    start = time.perf_counter()
    settings = load_settings(settings_file)
    store = STORE / cycle_key(settings, data)
    if engine is None or engine.address is None:
        device = choose_device(settings.device)
        prepare_process(device, settings.precision)
        splits = load_splits(data, device)
        cycles = run_cycles(settings, splits, store, number_of_workers(settings, device))
    else:
        splits = load_splits(data, torch.device("cpu"))
        with connected(engine, settings.device) as cluster:
            cycles = run_cycles(settings, splits, store, cluster.slots, cluster)
    environment = unite(load_machines(store)) | {
        "seconds_per_epoch": [cycle.seconds_per_epoch for cycle in cycles],
        "seconds_total": time.perf_counter() - start,
    }
    summary = write_run(settings, cycles, splits, environment, load_movies(data), output)
    shutil.rmtree(store)
    return summary


def load_splits(data: Path, device: torch.device) -> Splits:
    """The three sets on the device, genres as float32; PmmoError for a set of one movie."""
    movies = load_movies(data)
    splits = {}
    for name in SPLITS:
        text, image, genres = movies.split(name)
        if len(text) < 2:
            raise PmmoError(
                f"{data}: {name} has one movie, and batch norm needs two. Give the file's split "
                f"{name!r} more movies."
            )
        splits[name] = Batch(text.to(device), image.to(device), genres.to(device).float())
    return splits


def number_of_workers(settings: Settings, device: torch.device) -> int:
    """One process per core on a CPU, at most one per cycle; one process on a GPU."""
    if device.type != "cpu":
        return 1
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(settings.cycles, int(os.environ.get(WORKERS, available)))
