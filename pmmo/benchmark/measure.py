"""Run the groups of a plan and keep the time of each contender."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pmmo.benchmark.cases import Case
from pmmo.benchmark.plan import PEERS, VARIANTS, Group
from pmmo.benchmark.workers import NotMeasured, Worker, take_turns
from pmmo.core.errors import PmmoError

PHASE_ROUNDS = 3
LATE = "not measured: the time was up"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The measurements of a case; `error` is the reason if there are none."""

    case: Case
    seconds: tuple[float, ...] = ()  # per step, one value per round
    beside: tuple[float, ...] = ()  # those of PM+MO in the same rounds
    phases: dict[str, float] | None = None  # seconds per step
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def ratio(self) -> float | None:
        """The median over rounds of its time divided by PM+MO's."""
        if not self.seconds:
            return None
        return median(own / pmmo for own, pmmo in zip(self.seconds, self.beside, strict=True))


def run_group(
    group: Group, rounds: int, guest_rounds: int, deadline: float, say: Say
) -> list[Result]:
    """All results of a group, core first. PmmoError if a step of this project fails."""
    with ExitStack() as stack:
        workers = {}
        for case in group.core:
            say(f"{case}: starting")
            try:
                workers[case.contender] = stack.enter_context(Worker(case))
            except NotMeasured as error:
                raise PmmoError(f"{case}: {error}") from error
        say(f"{', '.join(workers)}: taking turns")
        seconds = take_turns(workers, rounds, "seconds", deadline)
        phases = take_turns(workers, min(rounds, PHASE_ROUNDS), "phases", deadline)
        found = [
            Result(
                case,
                tuple(seconds[case.contender]),
                tuple(seconds["pmmo"]),
                middle(phases[case.contender]),
                workers[case.contender].ask("finish"),
            )
            for case in group.core
        ]
        for name, worker in workers.items():
            if name != "pmmo":  # frees its memory before the guests start
                worker.close()
        for case in group.guests:
            say(f"{case}: starting")
            found.append(run_guest(case, workers["pmmo"], guest_rounds, deadline))
    return found


def run_guest(case: Case, pmmo: Worker, rounds: int, deadline: float) -> Result:
    """Measure a contender that alternates with PM+MO; a failed peer has the reason as `error`."""
    if time.monotonic() > deadline:
        return Result(case, error=LATE)
    try:
        with Worker(case) as worker:
            pair = {"pmmo": pmmo, case.contender: worker}
            seconds = take_turns(pair, rounds, "seconds", deadline)
            phases = middle([worker.ask("phases")])
            facts = worker.ask("finish")
    except NotMeasured as error:
        if case.contender not in (*PEERS, *VARIANTS):  # these may run out of memory
            raise PmmoError(f"{case}: {error}") from error
        return Result(case, error=str(error))
    return Result(case, tuple(seconds[case.contender]), tuple(seconds["pmmo"]), phases, facts)


def middle(rounds: list[dict[str, float] | None]) -> dict[str, float] | None:
    """The median of each phase."""
    known = [one for one in rounds if one is not None]
    return {phase: median(one[phase] for one in known) for phase in known[0]} if known else None
