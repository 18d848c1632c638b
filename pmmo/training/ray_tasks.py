"""Cycles as tasks of a Ray cluster: the movies are broadcast once, finished cycles come back.

Ray places, ships and retries; the process that calls, a DVC stage, keeps
the store of finished cycles, so that nothing but that process writes files. Ray is imported only
when it is chosen: it is optional (requirements-ray.txt).
"""

import importlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pmmo.config.engine import Engine
from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.model.systems import Batch
from pmmo.training.device import prepare_process
from pmmo.training.hardware import Machine, describe
from pmmo.training.loop import Cycle, train_cycle

RETRIES = 3  # of a cycle whose worker died
SECONDS_TO_CONNECT = 10.0
SECONDS_BETWEEN_LOOKS = 1.0  # at the progress of running cycles

Columns = Mapping[str, tuple[np.ndarray, ...]]  # split -> (text, image, genres)
OnEpoch = Callable[[int, float], None]  # (cycle, dev weighted F1)


@dataclass(frozen=True)
class Cluster:
    """A connection to a Ray cluster and what a cycle takes of it."""

    ray: ModuleType
    device: str  # cpu | cuda, of every cycle
    gpu_share: float  # of a GPU; 0 on CPUs
    slots: int  # cycles that fit side by side


def import_ray() -> ModuleType:
    """Ray, with its usage statistics off; PmmoError if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise PmmoError(
            f"the engine is Ray, which cannot be imported ({error}): "
            "pip install -r requirements.txt -r requirements-ray.txt, or use engine: local"
        ) from error


@contextmanager
def connected(engine: Engine, device: str) -> Iterator[Cluster]:
    """A connection to the engine's cluster for cycles on `device`: auto, cpu or cuda.

    This machine's copy of pmmo travels along and is what the workers run. Raises PmmoError if
    there is no cluster, or none with such a device.
    """
    ray = import_ray()
    with tempfile.TemporaryDirectory() as code:
        here = Path(__file__).parents[1]  # the package pmmo
        shutil.copytree(here, Path(code, here.name), ignore=shutil.ignore_patterns("__pycache__"))
        try:
            knock(engine)
            # as working_dir, not py_modules: else a worker looks into this machine's path first
            ray.init(engine.address, runtime_env={"working_dir": code}, logging_level="warning")
        except (OSError, RuntimeError, ValueError) as error:
            raise PmmoError(
                f"no connection to the Ray cluster {engine.engine!r}: {error}\n"
                "Start one with `ray start --head --disable-usage-stats` (docs/scaling.md), or use "
                "engine: local"
            ) from error
        try:
            yield measure(ray, engine, device)
        finally:
            ray.shutdown()  # which ends this connection's workers


def knock(engine: Engine) -> None:
    """OSError if nothing listens at the engine's address: Ray itself would try for ever."""
    if engine.address and engine.address != "auto":
        host, port = engine.address.removeprefix("ray://").rsplit(":", 1)
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()


def measure(ray: ModuleType, engine: Engine, device: str) -> Cluster:
    """What the cluster has for cycles; `auto` is CUDA where any node has a GPU."""
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    share = engine.gpu_share if device == "cuda" else 0.0
    slots = int(min(cpus, gpus / share) if share else cpus)
    if slots < 1:
        raise PmmoError(
            f"device is {device!r}, of which a cycle takes {share or 1:g} and one CPU; the Ray "
            f"cluster has {gpus:g} GPUs and {cpus:g} CPUs: add a node, or change device or engine"
        )
    return Cluster(ray, device, share, slots)


def run_on_ray(
    cluster: Cluster,
    settings: Settings,
    splits: Mapping[str, Batch],
    cycles: list[int],
    on_epoch: OnEpoch,
    keep: Callable[[Cycle, Machine], None],
) -> None:
    """Train `cycles` as Ray tasks; each goes to `keep` once, as it finishes.

    `splits` are on the CPU. A cycle whose worker dies is trained again, up to RETRIES times.
    Raises PmmoError with a cycle's message, or naming the cycle that Ray gave up; the others are
    stopped.
    """
    ray = cluster.ray
    columns = {name: tuple(column.numpy() for column in batch) for name, batch in splits.items()}
    movies = ray.put(columns)
    progress = start_progress(ray)
    task = ray.remote(
        num_cpus=1, num_gpus=cluster.gpu_share, max_retries=RETRIES, scheduling_strategy="SPREAD"
    )(train_there)
    version = public_version(torch.__version__)
    running = {
        task.remote(
            settings, movies, cycle, cluster.device, cluster.slots, version, progress
        ): cycle
        for cycle in cycles
    }
    told = dict.fromkeys(cycles, 0)  # epochs; a cycle that starts again tells them again

    def tell(cycle: int, epoch: int, dev_f1: float) -> None:
        while told[cycle] < epoch:
            told[cycle] += 1
            on_epoch(cycle, dev_f1)

    try:
        while running:
            finished, _ = ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)
            for news in take(ray, progress):
                tell(*news)
            for reference in finished:
                cycle = running.pop(reference)
                trained, machine = result(ray, reference, cycle)
                tell(cycle, settings.epochs, trained.curves[-1]["dev_weighted"])
                keep(trained, machine)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(progress)


def result(ray: ModuleType, reference: Any, cycle: int) -> tuple[Cycle, Machine]:
    """What a task returned; PmmoError with its own message, or if Ray lost it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PmmoError):
            raise PmmoError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        raise PmmoError(
            f"Ray gave cycle {cycle} up: {type(error).__name__} (killed, or out of memory? A cycle "
            f"whose worker dies is tried {RETRIES + 1} times); finished cycles are kept: run again"
        ) from error


def start_progress(ray: ModuleType) -> Any:
    """An actor that collects (cycle, epoch, dev F1) from the workers until they are taken."""

    class Progress:  # here, not in the module: its process then imports no torch
        def __init__(self) -> None:
            self.told: list[tuple[int, int, float]] = []

        def tell(self, cycle: int, epoch: int, dev_f1: float) -> None:
            self.told.append((cycle, epoch, dev_f1))

        def take(self) -> list[tuple[int, int, float]]:
            told, self.told = self.told, []
            return told

    return ray.remote(num_cpus=0, max_restarts=-1)(Progress).remote()


def take(ray: ModuleType, progress: Any) -> list[tuple[int, int, float]]:
    """What was told since the last time; nothing while the actor's node is down."""
    try:
        return ray.get(progress.take.remote(), timeout=30.0)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return []


def train_there(
    settings: Settings,
    columns: Columns,
    cycle: int,
    device: str,
    slots: int,
    version: str,
    progress: Any,
) -> tuple[Cycle, Machine]:
    """On a worker: one cycle, prepared as the training stage prepares itself."""
    if (found := public_version(torch.__version__)) != version:
        raise PmmoError(
            f"a Ray worker on {os.uname().nodename} has torch {found}, the driving machine "
            f"{version}: install requirements.txt and requirements-ray.txt there"
        )
    prepare_process(torch.device(device), settings.precision)
    splits = {
        name: Batch(*(torch.tensor(column, device=device) for column in parts))
        for name, parts in columns.items()
    }

    trained = train_cycle(settings, splits, cycle, progress.tell.remote)
    return trained, describe(torch.device(device), slots, settings.precision)


def public_version(version: str) -> str:
    """Without the local part: builds for CPU and for CUDA are the same release."""
    return version.split("+")[0]
