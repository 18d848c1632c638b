"""The steps that are timed: the project's own, and the plain reference.

A contender takes one training step on a batch (`step`), and names the calls inside it that are
phases (`phases`: owner, name, phase), for those whose phases can be told apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import pmmo.systems
from pmmo.benchmark.cases import Case
from pmmo.plain import PlainPmmo
from pmmo.systems import Batch, Sizes
from pmmo.training import build_system

Calls = tuple[tuple[object, str, str], ...]


@dataclass(frozen=True)
class Contender:
    step: Callable[[Batch], Tensor]  # trains on a batch; the loss, a scalar
    calls: Calls = ()  # the phases inside `step`
    rest: str = "backward"  # the phase of what `calls` leaves over


def sizes(case: Case) -> Sizes:
    s = case.shape
    return Sizes(text=s.text, image=s.image, genres=s.genres, movies=s.movies)


def update_calls(system: torch.nn.Module) -> Calls:
    calls = [(system, "limit_norms", "update")]
    for optimiser in system.optimisers:
        calls += [(optimiser, "zero_grad", "update"), (optimiser, "step", "update")]
    return tuple(calls)


def stepper(system: torch.nn.Module) -> Callable[[Batch], Tensor]:
    return lambda batch: system.train_step(batch, 0)["loss"].detach()


def own(case: Case) -> Contender:
    """A system of this project: PM+MO, M+MO or the GMU."""
    system = build_system(case.settings, sizes(case)).to(case.device).train()
    calls: Calls = ((system, "losses", "forward"), *update_calls(system))
    if case.settings.system == "pmmo":
        calls += (
            (system.fusion.guide, "forward", "draw"),
            (pmmo.systems.KL_TERMS, case.settings.elbo, "KL"),
            (pmmo.systems, "penalty", "KL"),
        )
    return Contender(stepper(system), calls)


def plain(case: Case) -> Contender:
    """PM+MO written plainly, as in Pyro's tutorials."""
    system = PlainPmmo(case.settings, sizes(case)).to(case.device).train()
    calls: Calls = (
        (system, "losses", "forward"),
        (system, "guide", "draw"),
        (system, "log_probs", "KL"),
        (system, "penalty", "KL"),
        *update_calls(system),
    )
    return Contender(stepper(system), calls)
