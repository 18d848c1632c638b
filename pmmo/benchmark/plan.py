"""Which contenders meet, at which sizes, threads and precisions."""

from collections.abc import Mapping
from dataclasses import dataclass

from pmmo.benchmark.cases import PRECISIONS, Case, Shape, at_width
from pmmo.settings import Settings

PUBLISHED = Shape()
PEERS = ("torchbnn", "bayesian-torch", "blitz", "numpyro")
LABELS = {
    "pmmo": "PM+MO",
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
    base: int = 512  # the GMU's
    rounds: int = 7
    guest_rounds: int = 4
    threads: int = 2  # of the group that shows how threads scale; 1: no such group
    budget_seconds: float = 510.0  # no new round or guest begins after it


@dataclass(frozen=True)
class Group:
    """Contenders that take turns. `core` run together; each of `guests` meets PM+MO alone."""

    core: tuple[Case, ...]
    guests: tuple[Case, ...] = ()


def groups(plan: Plan, settings: Mapping[str, Settings]) -> list[Group]:
    """The groups of a run, in order. `settings` holds those of pmmo, mmo and gmu."""

    def cases(names: tuple[str, ...], width: int, **rest: object) -> tuple[Case, ...]:
        found = []
        for name in names:
            own = settings.get(name, settings["pmmo"])
            own = at_width(own, plan.base if name == "gmu" else width)
            found.append(Case(name, own, plan.shape, device=plan.device, **rest))
        return tuple(found)

    core, guests = ("pmmo", "bound", "mmo", "plain"), ("tutorial", *PEERS)
    narrow_guests = cases(guests if plan.quick else guests[:1], plan.narrow)
    narrow = Group(cases((*core, "gmu"), plan.narrow), narrow_guests)
    wide = Group(cases(core, plan.wide), cases(guests, plan.wide))
    found = [narrow] if plan.quick else [wide, narrow]
    width = plan.narrow if plan.quick else plan.wide
    if plan.device == "cuda":
        for precision in PRECISIONS[1:]:
            names = ("pmmo", "bound", "mmo", "plain") if precision == "tf32" else ("pmmo", "mmo")
            found.append(Group(cases(names, width, precision=precision)))
    elif plan.threads > 1:
        found.append(Group(cases(("pmmo", "bound"), width, threads=plan.threads)))
    return found
