"""The cycles of one row: run them, side by side on a CPU or on Ray, keep each, resume.

A finished cycle is stored under a key made of everything it depends on, so that a stage that was
killed resumes with the cycles it lacks and never picks up those of another setting. DVC removes a
stage's outputs before it runs it; the store lies outside them.
"""

import shutil
import sys
from pathlib import Path

import torch

from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.core.progress import Monitor
from pmmo.training.cycle_store import fault_of, load_cycle, save_cycle
from pmmo.training.hardware import Machine, describe
from pmmo.training.local_processes import side_by_side, words
from pmmo.training.loop import Cycle, Report, Splits, train_cycles
from pmmo.training.ray_tasks import Cluster, run_on_ray


def run_cycles(
    settings: Settings,
    splits: Splits,
    store: Path,
    workers: int,
    cluster: Cluster | None = None,
) -> list[Cycle]:
    """All cycles of a row, in order: those in `store` as they are, the others trained.

    With a cluster they run on it. Else, with several workers, they run side by side in forked
    processes that share the movies. The numbers are the same everywhere, but for the rounding of
    cycles that take their steps together (`cycles_together`). Raises PmmoError if a cycle fails.
    """
    folders = {cycle: store / f"cycle-{cycle}" for cycle in range(settings.cycles)}
    missing = [cycle for cycle, folder in folders.items() if not usable(folder, settings.name)]
    device = splits["train"].text.device
    size = cycles_together(settings, device)
    groups = [missing[first : first + size] for first in range(0, len(missing), size)]

    def keep(trained: Cycle, machine: Machine) -> None:
        save_cycle(trained, machine, folders[trained.summary["cycle"]])

    def train(group: list[int], report: Report) -> None:
        try:
            found = train_cycles(settings, splits, group, report)
        except torch.OutOfMemoryError as error:
            raise PmmoError(
                f"{settings.name}: {device} has too little memory for {words(group)} ({error}); "
                "set cycles_together to a smaller number, or batch_size or width"
            ) from None
        for trained in found:
            keep(trained, describe(device, workers, settings.precision))

    def on_epoch(cycle: int, _: int, dev_f1: float) -> None:
        monitor.epoch(cycle, dev_f1)

    with Monitor(settings.name, settings.epochs * len(missing)) as monitor:
        if cluster is not None:
            run_on_ray(cluster, settings, splits, missing, monitor.epoch, keep)
        elif workers > 1 and len(groups) > 1:
            try:
                side_by_side(train, groups, workers, on_epoch)
            finally:  # of processes that were stopped
                for rest in store.glob("*.tmp"):
                    shutil.rmtree(rest, ignore_errors=True)
        else:
            for group in groups:
                train(group, on_epoch)
    cycles = [load_cycle(folder) for folder in folders.values()]
    if settings.kept_epoch == "best":
        for cycle in filter(undecided, cycles):
            print(
                f"{settings.name}, cycle {cycle.summary['cycle']}: weighted F1 on dev is "
                f"{cycle.summary['dev']['weighted']:.3f} in every epoch and chooses none; "
                "the last epoch is kept",
                file=sys.stderr,
            )
    return cycles


def usable(folder: Path, row: str) -> bool:
    """Whether a finished cycle is there; one that is not as it was written is removed."""
    if not folder.exists():
        return False
    if fault := fault_of(folder):
        print(f"{row}: {folder}: {fault}; this cycle is trained again", file=sys.stderr)
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    return not fault


def undecided(cycle: Cycle) -> bool:
    """Whether no epoch is better on dev than another."""
    return len(cycle.curves) > 1 and len({line["dev_weighted"] for line in cycle.curves}) == 1


def cycles_together(settings: Settings, device: torch.device) -> int:
    """How many cycles take their steps together: on a CPU it gains nothing, on a GPU all do."""
    if settings.cycles_together is None:  # a system that cannot be stacked
        return 1
    if settings.cycles_together == "auto":
        return settings.cycles if device.type == "cuda" else 1
    return settings.cycles_together
