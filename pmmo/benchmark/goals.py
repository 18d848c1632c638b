"""Goals for the cost of the step, as ratios, and whether this run meets them."""

from collections.abc import Callable, Sequence
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


def finder(results: Sequence[Result]) -> Callable[..., Result | None]:
    """A function that finds a result by contender, width, threads and precision."""

    def find(name: str, width: int, threads: int = 1, precision: str = "float32") -> Result | None:
        for result in results:
            case = result.case
            key = (case.contender, case.settings.width, case.threads, case.precision)
            if key == (name, width, threads, precision) and result.seconds:
                return result
        return None

    return find


def goals(plan: Plan, results: Sequence[Result]) -> list[Goal]:
    """All goals of the plan's device, measured or not."""
    find = finder(results)

    def ratio(name: str, width: int) -> float | None:
        found = find(name, width)
        return found.ratio if found else None

    def inverse(name: str, width: int) -> float | None:
        value = ratio(name, width)
        return 1 / value if value else None

    if plan.device == "cuda":
        return gpu_goals(plan, results)
    wide, narrow = plan.wide, plan.narrow
    unprepared = LABELS["tutorial"]
    found = [
        Goal(f"{unprepared} / PM+MO, width {wide}", "≥", 4.0, ratio("tutorial", wide)),
        Goal(f"PM+MO / hardware bound, width {wide}", "≤", 1.3, inverse("bound", wide)),
        Goal(f"PM+MO / deterministic step, width {wide}", "≤", 1.3, inverse("mmo", wide)),
        Goal(f"{unprepared} / PM+MO, width {narrow}", "≥", 2.0, ratio("tutorial", narrow)),
        *around(find("pmmo", narrow if plan.quick else wide)),
    ]
    width = narrow if plan.quick else wide
    for peer in PEERS:
        found.append(Goal(f"{LABELS[peer]} / PM+MO, width {width}", "≥", 1.0, ratio(peer, width)))
    if plan.threads > 1:
        text = f"speed-up of PM+MO by {plan.threads} threads / that of the bound, width {width}"
        found.append(Goal(text, "≥", 0.85, scaling(find, width, plan.threads)))
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


def scaling(find: Callable[..., Result | None], width: int, threads: int) -> float | None:
    """The speed-up of PM+MO by threads divided by the bound's; None if not measured."""
    four = [find(name, width, n) for name in ("pmmo", "bound") for n in (1, threads)]
    medians = [result.median for result in four if result is not None]
    if len(medians) < len(four):
        return None
    pmmo, pmmo_threads, bound, bound_threads = medians
    return (pmmo / pmmo_threads) / (bound / bound_threads)


def gpu_goals(plan: Plan, results: Sequence[Result]) -> list[Goal]:
    """Goals for the time of an epoch and, from it, of the whole study, on an H100."""
    width = plan.narrow if plan.quick else plan.wide
    found = around(finder(results)("pmmo", width))
    for result in results:
        case = result.case
        mine = case.contender in ("pmmo", *VARIANTS)
        if mine and result.seconds and case.settings.width == width:
            epoch = result.median * case.steps_per_epoch
            of = f"{LABELS[case.contender]}, width {width}, {case.precision}"
            found.append(Goal(f"epoch of one cycle, {of}", "≤", 0.15, epoch, " s"))
            study = STUDY_ROWS * case.settings.cycles * case.settings.epochs * epoch / 60
            text = f"training of the whole study if every row cost as much as {of}"
            found.append(Goal(text, "≤", 5.0, study, " min"))
    return found
