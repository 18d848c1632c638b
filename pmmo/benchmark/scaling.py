"""Measure time and memory over movies, width, cycles and threads, in short runs along one axis.

Columns of the frame: axis, value, what (the contender), quantity ("ms per step", "s per epoch" or
"s"), time, peak_gb.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import pandas as pd
import psutil

from pmmo.benchmark.cases import Case, Shape, case_of
from pmmo.benchmark.measure import Say
from pmmo.benchmark.plan import PUBLISHED
from pmmo.benchmark.workers import Worker, take_turns
from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError

COLUMNS = ("axis", "value", "what", "quantity", "time", "peak_gb")
SAMPLE_SECONDS = 0.02  # between two measurements of the cycles' memory


@dataclass(frozen=True)
class Sweep:
    """The values along each axis, and the fixed sizes."""

    rows: tuple[int, ...] = (486, 972, 1944, 3888, 7776, 15_552)
    widths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 3000)
    cycles: tuple[int, ...] = (1, 2, 3, 4, 5)
    threads: tuple[int, ...] = ()  # (): 1, 2, 4 … all cores
    rounds: int = 3
    width: int = 512  # for the axes rows and cycles
    movies: int = 3888  # for the axis cycles
    threads_width: int = 3000
    shape: Shape = PUBLISHED

    def thread_counts(self) -> tuple[int, ...]:
        cores = os.cpu_count() or 1
        powers = {2**k for k in range(cores.bit_length()) if 2**k <= cores}
        return self.threads or tuple(sorted(powers | {cores}))


def scaling(sweep: Sweep, settings: Mapping[str, Settings], say: Say) -> pd.DataFrame:
    """Measure all axes on the CPU."""
    lines: list[tuple] = []
    for axis in (by_rows, by_width, by_cycles, by_threads):
        for line in axis(sweep, settings):
            say(f"{line[0]} {line[1]:,}: {line[2]} {line[4]:.3g} {line[3]}")
            lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def turns(
    axis: str, value: int, cases: list[Case], rounds: int, question: str = "seconds"
) -> Iterator[tuple]:
    """The lines of cases that take turns, with the median over the rounds."""
    quantity, unit = ("s per epoch", 1.0) if question == "epoch" else ("ms per step", 1e3)
    with ExitStack() as stack:
        workers = {case.contender: stack.enter_context(Worker(case)) for case in cases}
        answers = take_turns(workers, rounds, question, deadline=float("inf"))
        for name, worker in workers.items():
            peak = worker.ask("finish")["peak_bytes"] / 1e9
            # the bound's arrays have no relation to a step's memory
            held = None if name == "bound" else peak
            yield axis, value, name, quantity, unit * median(answers[name]), held


def by_rows(sweep: Sweep, settings: Mapping[str, Settings]) -> Iterator[tuple]:
    """Measure an epoch for each number of movies."""
    for rows in sweep.rows:
        shape = replace(sweep.shape, movies=rows)
        cases = [case_of(name, sweep.width, settings, shape) for name in ("pmmo", "gmu")]
        yield from turns("rows", rows, cases, sweep.rounds, "epoch")


def by_width(sweep: Sweep, settings: Mapping[str, Settings]) -> Iterator[tuple]:
    """Measure a step for each number of hidden units."""
    for width in sweep.widths:
        names = ("pmmo", "mmo", "plain", "bound")
        cases = [case_of(name, width, settings, sweep.shape) for name in names]
        yield from turns("width", width, cases, sweep.rounds)


def by_threads(sweep: Sweep, settings: Mapping[str, Settings]) -> Iterator[tuple]:
    """Measure a step for each number of threads."""
    for threads in sweep.thread_counts():
        cases = [
            case_of(name, sweep.threads_width, settings, sweep.shape, threads=threads)
            for name in ("pmmo", "bound")
        ]
        yield from turns("threads", threads, cases, sweep.rounds)


def by_cycles(sweep: Sweep, settings: Mapping[str, Settings]) -> Iterator[tuple]:
    """Measure each number of cycles of one epoch, side by side as in a training stage."""
    shape = replace(sweep.shape, movies=sweep.movies)
    workers = os.cpu_count() or 1
    for cycles in sweep.cycles:
        row = replace(settings["pmmo"], width=sweep.width, epochs=1, cycles=cycles)
        times = [run_stage(row, shape, workers)[0] for _ in range(sweep.rounds)]
        _, peak = run_stage(row, shape, workers, watched=True)
        yield "cycles", cycles, "pmmo", "s", median(times), peak


def run_stage(
    settings: Settings, shape: Shape, workers: int, watched: bool = False
) -> tuple[float, float | None]:
    """(seconds, peak GB) of the cycles of a variant, in a fresh process and its forks.

    The peak is None unless `watched`, because watching slows the processes down.
    """
    context = get_context("spawn")
    pipe, other = context.Pipe()
    # not a daemon, because a daemon may have no children
    process = context.Process(target=stage, args=(other, settings, shape, workers))
    process.start()
    other.close()
    peak = 0.0
    try:
        while watched and not pipe.poll(SAMPLE_SECONDS):
            peak = max(peak, memory_of(process.pid))
        seconds = pipe.recv()
    except EOFError:
        raise PmmoError(f"the cycles of width {settings.width} could not be run") from None
    finally:
        process.join()
    return seconds, peak / 1e9 if watched else None


def stage(pipe: Connection, settings: Settings, shape: Shape, workers: int) -> None:
    """The child: make random movies, train the cycles, and send the seconds of the training."""
    import torch

    from pmmo.benchmark.runner import movies
    from pmmo.training.cycles import run_cycles
    from pmmo.training.device import prepare_process

    prepare_process(torch.device("cpu"))
    train = movies(Case("pmmo", settings, shape))
    few = type(train)(*(column[:64] for column in train))
    splits = {"train": train, "dev": few, "test": few}
    with tempfile.TemporaryDirectory() as store:
        start = time.perf_counter()
        run_cycles(settings, splits, Path(store), workers)
        pipe.send(time.perf_counter() - start)


def memory_of(pid: int | None) -> float:
    """Bytes of the process and its children; 0 where one of them has just ended.

    On Linux, shared pages count once (PSS); elsewhere they count for each process.
    """
    try:
        parent = psutil.Process(pid)
        found = [p.memory_full_info() for p in (parent, *parent.children(recursive=True))]
    except psutil.Error:
        return 0.0
    return sum(getattr(memory, "pss", memory.uss) for memory in found)
