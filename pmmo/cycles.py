"""The cycles of one row: run them, side by side on a CPU or on Ray, keep each, resume.

A finished cycle is stored under a key made of everything it depends on, so that a stage that was
killed resumes with the cycles it lacks and never picks up those of another setting. DVC removes a
stage's outputs before it runs it; the store lies outside them.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import Process, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pmmo.device import describe
from pmmo.errors import PmmoError
from pmmo.monitor import Monitor
from pmmo.ray_engine import Cluster, Machine, run_on_ray
from pmmo.settings import Settings
from pmmo.training import Cycle, Report, Splits, train_cycles


def cycle_key(settings: Settings, data: Path) -> str:
    """Hash of the settings, the tensor files, the code that is loaded and torch's version."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    digest.update(torch.__version__.encode())
    for path in sorted(data.iterdir()):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for name in sorted(n for n in sys.modules if n.split(".")[0] == "pmmo"):
        digest.update(Path(sys.modules[name].__file__).read_bytes())
    return digest.hexdigest()[:16]


def save_cycle(cycle: Cycle, machine: Machine, folder: Path) -> None:
    """Write a finished cycle to `folder`, which appears whole or not at all.

    `machine` describes where it was trained: cycles of one row may come from several.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(cycle.predictions, temporary / "predictions.safetensors")
    save_file(cycle.state, temporary / "state.safetensors")
    rest = {
        "summary": cycle.summary,
        "curves": cycle.curves,
        "seconds_per_epoch": cycle.seconds_per_epoch,
    }
    (temporary / "cycle.json").write_text(json.dumps(rest))
    (temporary / "machine.json").write_text(json.dumps(machine))
    temporary.rename(folder)


def load_cycle(folder: Path) -> Cycle:
    return Cycle(
        predictions=load_file(folder / "predictions.safetensors"),
        state=load_file(folder / "state.safetensors"),
        **json.loads((folder / "cycle.json").read_text()),
    )


def load_machines(store: Path) -> list[Machine]:
    """Where the finished cycles were trained, in order."""
    return [json.loads(path.read_text()) for path in sorted(store.glob("cycle-*/machine.json"))]


def run_cycles(
    settings: Settings,
    splits: Splits,
    store: Path,
    workers: int,
    cluster: Cluster | None = None,
) -> list[Cycle]:
    """All cycles of a row, in order: those in `store` as they are, the missing ones trained.

    With a cluster they run on it. Else, with several workers, they run side by side in forked
    processes that share the movies. The numbers are the same everywhere, but for the rounding of
    cycles that take their steps together (`cycles_together`). Raises PmmoError if a cycle fails.
    """
    folders = {cycle: store / f"cycle-{cycle}" for cycle in range(settings.cycles)}
    missing = [cycle for cycle, folder in folders.items() if not folder.exists()]
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
            side_by_side(train, groups, workers, on_epoch)
        else:
            for group in groups:
                train(group, on_epoch)
    return [load_cycle(folder) for folder in folders.values()]


def cycles_together(settings: Settings, device: torch.device) -> int:
    """How many cycles take their steps together: on a CPU it gains nothing, on a GPU all do."""
    if settings.cycles_together is None:  # a system that cannot be stacked
        return 1
    if settings.cycles_together == "auto":
        return settings.cycles if device.type == "cuda" else 1
    return settings.cycles_together


def words(group: list[int]) -> str:
    return ("cycle " if len(group) == 1 else "cycles ") + ", ".join(map(str, group))


def side_by_side(
    train: Callable[[list[int], Report], None],
    groups: list[list[int]],
    workers: int,
    on_epoch: Report,
) -> None:
    """Run `train(cycles, report)` of each group in a forked process, `workers` at a time.

    Raises PmmoError with a group's message, or naming the cycles whose process died; the others
    are stopped.
    """
    context = get_context("fork")
    waiting = list(groups)
    running: dict[Connection, tuple[list[int], Process]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                group = waiting.pop(0)
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(
                    target=in_child, args=(train, group, writer, os.getpid()), daemon=True
                )
                with undisturbed():
                    process.start()
                writer.close()
                running[reader] = (group, process)
            for reader in wait(list(running)):
                group, process = running[reader]
                try:
                    message = reader.recv()
                except EOFError:  # the process has ended
                    del running[reader]
                    process.join()
                    if process.exitcode != 0:
                        raise PmmoError(
                            f"the process of {words(group)} ended with code {process.exitcode} "
                            "(killed, or out of memory?); finished cycles are kept: run again"
                        ) from None
                    continue
                if isinstance(message, str):
                    raise PmmoError(message)
                on_epoch(*message)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits: Python swallows a KeyboardInterrupt that falls into the hooks of a fork."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_child(
    train: Callable[[list[int], Report], None], group: list[int], writer: Connection, parent: int
) -> None:
    """A group in its own process; sends cycle, epoch and dev F1, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent stops its children

    def report(*news: float) -> None:
        if os.getppid() != parent:  # the parent was killed: leave nothing running
            os._exit(1)
        writer.send(news)

    try:
        train(group, report)
    except PmmoError as error:
        writer.send(str(error))
