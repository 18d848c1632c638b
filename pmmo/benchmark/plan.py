"""The contenders to compare, with their sizes, threads and precisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pmmo.benchmark.cases import Case, Shape, case_of
from pmmo.config.settings import PRECISIONS, Settings

PUBLISHED = Shape()
VARIANTS = ("compiled", "together", "together-compiled")  # ways to compute PM+MO's step
PEERS = ("torchbnn", "bayesian-torch", "blitz", "numpyro")
LABELS = {
    "pmmo": "PM+MO",
    "compiled": "PM+MO, compiled passes",
    "together": "PM+MO, five cycles together, each",
    "together-compiled": "PM+MO, five together and compiled, each",
    "bound": "hardware bound of this step",
    "mmo": "deterministic step (M+MO)",
    "gmu": "GMU",
    "plain": "plain Pyro step",
    "tutorial": "plain Pyro step, unprepared process",
    "torchbnn": "torchbnn",
    "bayesian-torch": "bayesian-torch",
    "blitz": "blitz",
    "numpyro": "NumPyro",
}


@dataclass(frozen=True)
class Plan:
    """The sizes of a run. `quick` leaves out the wide layers."""

    quick: bool = False
    device: str = "cpu"
    shape: Shape = PUBLISHED
    wide: int = 3000
    narrow: int = 1024
    rounds: int = 13
    guest_rounds: int = 4
    threads: int = 2  # for the group that measures scaling over threads
    budget_seconds: float = 510.0  # no new round or guest starts after this time

    @property
    def width(self) -> int:
        """The widest layers that are measured."""
        return self.narrow if self.quick else self.wide


@dataclass(frozen=True)
class Group:
    """Contenders that take turns: all of `core` together, each of `guests` with PM+MO alone."""

    core: tuple[Case, ...]
    guests: tuple[Case, ...] = ()


def groups(plan: Plan, settings: Mapping[str, Settings]) -> list[Group]:
    """The groups of a run, in order, from the `settings` of pmmo, mmo and gmu."""

    def cases(names: tuple[str, ...], width: int, **more: Any) -> tuple[Case, ...]:
        return tuple(
            case_of(name, width, settings, plan.shape, plan.device, **more) for name in names
        )

    core, on_gpu = ("pmmo", "bound", "mmo", "plain"), plan.device == "cuda"
    everyone = ("tutorial", *PEERS, *(VARIANTS if on_gpu else ()))
    few = ("tutorial", *(VARIANTS if on_gpu else VARIANTS[:2]))
    narrow_guests = cases(everyone if plan.quick else few, plan.narrow)
    narrow = Group(cases((*core, "gmu"), plan.narrow), narrow_guests)
    wide = Group(cases(core, plan.wide), cases(everyone, plan.wide))
    found = [narrow] if plan.quick else [wide, narrow]
    if on_gpu:
        for precision in PRECISIONS[1:]:
            names = core if precision == "tf32" else ("pmmo", "mmo")
            guests = cases(VARIANTS, plan.width, precision=precision)
            found.append(Group(cases(names, plan.width, precision=precision), guests))
    else:
        found.append(Group(cases(("pmmo", "bound"), plan.width, threads=plan.threads)))
    return found
