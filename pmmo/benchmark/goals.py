"""Goals for the cost of the step, as ratios, and whether this run meets them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pmmo.benchmark.measure import Result
from pmmo.benchmark.plan import LABELS, PEERS, VARIANTS, Plan

STUDY_ROWS = 20  # `variants` of params.yaml


@dataclass(frozen=True)
class Goal:
    text: str
    sign: str  # "≥" or "≤"
    limit: float
    measured: float | None  # None if this run did not measure it
    unit: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        if self.sign == "≥":
            return self.measured >= self.limit
        return self.measured <= self.limit


def find(results: Sequence[Result], name: str, width: int, threads: int = 1) -> Result | None:
    """The result of a contender in float32; None if this run did not measure it."""
    for result in results:
        case = result.case
        key = (case.contender, case.settings.width, case.threads, case.precision)
        if key == (name, width, threads, "float32") and result.seconds:
            return result
    return None


def goals(plan: Plan, results: Sequence[Result]) -> list[Goal]:
    """All goals of the plan's device, measured or not."""

    def ratio(name: str, width: int) -> float | None:
        found = find(results, name, width)
        return found.ratio if found else None

    def inverse(name: str, width: int) -> float | None:
        value = ratio(name, width)
        return 1 / value if value else None

    if plan.device == "cuda":
        return gpu_goals(plan, results)
    wide, narrow, width = plan.wide, plan.narrow, plan.width
    unprepared = LABELS["tutorial"]
    found = [
        Goal(f"{unprepared} / PM+MO, width {wide}", "≥", 4.0, ratio("tutorial", wide)),
        Goal(f"PM+MO / hardware bound, width {wide}", "≤", 1.3, inverse("bound", wide)),
        Goal(f"PM+MO / deterministic step, width {wide}", "≤", 1.3, inverse("mmo", wide)),
        Goal(f"{unprepared} / PM+MO, width {narrow}", "≥", 2.0, ratio("tutorial", narrow)),
        *around(find(results, "pmmo", width)),
    ]
    for peer in PEERS:
        found.append(Goal(f"{LABELS[peer]} / PM+MO, width {width}", "≥", 1.0, ratio(peer, width)))
    text = f"speed-up of PM+MO by {plan.threads} threads / that of the bound, width {width}"
    found.append(Goal(text, "≥", 0.85, scaling(results, width, plan.threads)))
    return found


def around(pmmo: Result | None) -> list[Goal]:
    """Goals for the part of an epoch outside the arithmetic of its steps."""
    data = evaluation = None
    if pmmo is not None and pmmo.phases:
        data = 100 * pmmo.phases["data"] / sum(pmmo.phases.values())
        epoch = pmmo.median * pmmo.case.steps_per_epoch
        evaluation = 100 * pmmo.facts["dev_seconds"] / epoch
    return [
        Goal("data access of the step", "≤", 1.0, data, " %"),
        Goal("evaluation of dev after an epoch, of its steps", "≤", 5.0, evaluation, " %"),
    ]


def scaling(results: Sequence[Result], width: int, threads: int) -> float | None:
    """The speed-up of PM+MO by threads divided by the bound's; None if not measured."""
    four = [find(results, name, width, n) for name in ("pmmo", "bound") for n in (1, threads)]
    medians = [result.median for result in four if result is not None]
    if len(medians) < len(four):
        return None
    pmmo, pmmo_threads, bound, bound_threads = medians
    return (pmmo / pmmo_threads) / (bound / bound_threads)


def gpu_goals(plan: Plan, results: Sequence[Result]) -> list[Goal]:
    """Goals for the time of an epoch and, from it, of the whole study, on an H100."""
    found = around(find(results, "pmmo", plan.width))
    for result in results:
        case = result.case
        mine = case.contender in ("pmmo", *VARIANTS)
        if mine and result.seconds and case.settings.width == plan.width:
            epoch = result.median * case.steps_per_epoch
            of = f"{LABELS[case.contender]}, width {plan.width}, {case.precision}"
            found.append(Goal(f"epoch of one cycle, {of}", "≤", 0.15, epoch, " s"))
            study = STUDY_ROWS * case.settings.cycles * case.settings.epochs * epoch / 60
            text = f"training of the whole study if every row cost as much as {of}"
            found.append(Goal(text, "≤", 5.0, study, " min"))
    return found
