"""The steps that are timed: those of this project, and the plain reference.

`step` of a contender takes one training step on a batch. If its phases can be separated, `calls`
names the calls inside the step that are phases, as (owner, name, phase).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmmo.benchmark.cases import Case
from pmmo.benchmark.plain import PlainPmmo
from pmmo.model import systems
from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes, System
from pmmo.training.evaluation import predict, scores
from pmmo.training.stacking import build_together

Calls = tuple[tuple[object, str, str], ...]


@dataclass(frozen=True)
class Contender:
    step: Callable[[Batch], Tensor]  # trains on a batch and returns the loss, a scalar
    calls: Calls = ()  # the phases inside `step`
    cycles: int = 1  # cycles per step; batches of several have an axis of cycles
    evaluate: Callable[[Batch], object] | None = None  # scores movies, as after each epoch


def sizes(case: Case) -> Sizes:
    s = case.shape
    return Sizes(text=s.text, image=s.image, genres=s.genres, movies=s.movies)


def update_calls(system: System | PlainPmmo) -> Calls:
    calls: list[tuple[object, str, str]] = [(system, "limit_norms", "update")]
    for optimiser in system.optimisers:
        calls += [(optimiser, "zero_grad", "update"), (optimiser, "step", "update")]
    return tuple(calls)


def stepper(system: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: system.train_step(batch, 0)["loss"].detach().sum()


def own(case: Case) -> Contender:
    """A system of this project: PM+MO, M+MO or the GMU."""
    return contender(build_system(case.settings, sizes(case)).to(case.device))


def together(case: Case) -> Contender:
    """The cycles of PM+MO in one batched model."""
    settings, device = case.settings, torch.device(case.device)
    build = partial(build_system, settings, sizes(case))
    body, _ = build_together(build, range(settings.cycles), device)
    return replace(contender(body), cycles=settings.cycles, evaluate=None)


def contender(system: System) -> Contender:
    """One of this project's systems, with its phases."""
    calls: Calls = ((system, "losses", "forward"), *update_calls(system))
    if system.settings.system == "pmmo":
        calls += (
            (system.fusion.guide, "forward", "draw"),
            (systems.KL_TERMS, system.settings.elbo, "KL"),
            (systems, "penalty", "KL"),
        )

    def evaluate(movies: Batch) -> dict[str, float]:
        found, _ = predict(system, movies.text, movies.image)
        return scores(found, movies.genres, system.settings.threshold)

    return Contender(stepper(system.train()), calls, evaluate=evaluate)


def plain(case: Case) -> Contender:
    """PM+MO in plain Pyro, as in Pyro's tutorials."""
    system = PlainPmmo(case.settings, sizes(case)).to(case.device).train()
    calls: Calls = (
        (system, "losses", "forward"),
        (system, "guide", "draw"),
        (system, "log_probs", "KL"),
        (system, "penalty", "KL"),
        *update_calls(system),
    )
    return Contender(stepper(system), calls)
