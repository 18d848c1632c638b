"""Measure a contender inside its own process: time per step and phase, peak memory."""

import os
import resource
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import pyro
import torch
from torch import Tensor

from pmmo.benchmark import contenders, peers
from pmmo.benchmark.bound import Bound
from pmmo.benchmark.cases import PHASES, Case
from pmmo.benchmark.contenders import Contender
from pmmo.benchmark.stopwatch import Stopwatch, seconds_of, synchroniser, timed
from pmmo.core.errors import PmmoError
from pmmo.model.systems import Batch
from pmmo.training.device import prepare_process
from pmmo.training.loop import GLANCE, by_cycle

TURN_SECONDS = 0.4  # a turn takes about this time or longer; it repeats steps
MOST_STEPS = 40
EVALUATIONS = 3  # the result is their median


def numpyro(case: Case) -> Contender:
    from pmmo.benchmark.numpyro_peer import numpyro_step

    return numpyro_step(case)


BUILDERS: dict[str, Callable[[Case], Contender]] = {
    "pmmo": contenders.own,
    "mmo": contenders.own,
    "gmu": contenders.own,
    "compiled": contenders.own,
    "together": contenders.together,
    "together-compiled": contenders.together,
    "plain": contenders.plain,
    "tutorial": contenders.plain,  # in a process without set-up
    "torchbnn": peers.torchbnn,
    "bayesian-torch": peers.bayesian_torch,
    "blitz": peers.blitz,
    "numpyro": numpyro,
}


def prepare(case: Case) -> dict[str, Any]:
    """Set threads and precision of this process; return the resulting settings.

    Every contender but `tutorial` gets the set-up of a training stage: `training.device` sets
    matrix products, allocator and denormals, and switches Pyro's validation off.
    """
    if case.contender == "tutorial":
        pyro.enable_validation(True)  # Pyro's default
    else:
        prepare_process(torch.device(case.device), case.precision)
    torch.set_num_threads(case.threads)
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "thp_alloc": os.environ.get("THP_MEM_ALLOC_ENABLE", "unset"),
    }


def movies(case: Case) -> Batch:
    """Random movies of the case's shape."""
    generator = torch.Generator().manual_seed(0)
    shape = case.shape
    text, image, chance = (
        torch.rand(shape.movies, columns, generator=generator)
        for columns in (shape.text, shape.image, shape.genres)
    )
    return Batch(*(x.to(case.device) for x in (text - 0.5, image, (chance < 0.1).float())))


def row_numbers(case: Case) -> Iterator[Tensor]:
    """Row numbers of successive batches, which are equal parts of a permutation per epoch."""
    while True:
        order = torch.randperm(case.shape.movies, device=case.device)
        yield from order.tensor_split(case.steps_per_epoch)


class Runner:
    """A contender that is built, warmed up and ready for timing."""

    def __init__(self, case: Case) -> None:
        self.case, self.facts = case, prepare(case)
        torch.manual_seed(0)
        self.bound: Bound | None = None
        if case.contender == "bound":
            self.bound = Bound(case)
            self.bound.seconds()
            return
        self.movies = movies(case)
        self.contender = BUILDERS[case.contender](case)
        self.orders = [row_numbers(case) for _ in range(self.contender.cycles)]
        self.steps(2)  # to fill caches and compile
        self.steps_per_turn = max(1, min(MOST_STEPS, int(TURN_SECONDS / self.steps(1))))

    def seconds(self) -> float:
        """Seconds per step and cycle, the mean over a turn."""
        return self.bound.seconds() if self.bound else self.steps(self.steps_per_turn)

    def epoch(self) -> float:
        """Seconds of an epoch's steps."""
        count = self.case.steps_per_epoch
        return count * self.steps(count)

    def steps(self, count: int) -> float:
        seconds = seconds_of(self.step, count, self.case.device) / self.contender.cycles
        if not torch.isfinite(self.loss):
            raise PmmoError(f"the loss of {self.case.contender} is {float(self.loss)}")
        return seconds

    def step(self) -> None:
        self.loss = self.contender.step(self.batch())

    def batch(self) -> Batch:
        """The next batch of movies, for each cycle in a step."""
        rows = by_cycle([next(order) for order in self.orders])
        return Batch(*(column[rows] for column in self.movies))

    def phases(self) -> dict[str, float] | None:
        """Seconds per phase of a step; None if the phases cannot be separated."""
        if self.bound or not self.contender.calls:
            return None
        watch = Stopwatch(PHASES, synchroniser(self.case.device))
        with timed(watch, self.contender.calls):
            for _ in range(self.steps_per_turn):
                with watch.phase("data"):
                    batch = self.batch()
                with watch.phase("backward"):  # what no other phase takes
                    self.contender.step(batch)
        steps = self.steps_per_turn * self.contender.cycles
        return {phase: seconds / steps for phase, seconds in watch.seconds.items()}

    def finish(self) -> dict[str, Any]:
        """Facts of the process: peak memory in bytes, the bound's rates, seconds of evaluation."""
        if self.case.device == "cuda":
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux: KiB
        found = self.facts | {"peak_bytes": peak}
        if self.bound:
            return found | {"rates": self.bound.rates}
        if evaluate := self.contender.evaluate:
            for name, count in (("dev", self.case.shape.dev), ("glance", GLANCE)):
                run = partial(evaluate, Batch(*(column[:count] for column in self.movies)))
                run()  # the first finds its memory
                seconds = [seconds_of(run, 1, self.case.device) for _ in range(EVALUATIONS)]
                found[f"{name}_seconds"] = median(seconds)
        return found
