"""The paper's claims, each with a paired interval and a verdict; docs/claims.md defines them.

A claim states that a quantity lies above a threshold. It *holds* if the whole interval lies above
the threshold, and *does not hold* if the whole interval lies below. If the interval covers the
threshold, the two rows are *equivalent* where it lies within the margin of `verdicts` in
params.yaml, and the claim is *undecided* otherwise. A claim about a variant that params.yaml leaves
out is *not run*. A claim that rests on a variant that did not train (`guard.py`) is *not
decidable*.

A verdict's p-value is the smallest 1 - level at which the claim's own interval decides: at
`intervals.level` a claim is decided exactly where its p-value is at most 1 - level. Holm's
correction takes the claims together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pmmo.analysis.comparisons import (
    BASELINE,
    BEST,
    ONE_COLUMN,
    UNREGULARISED,
    Differences,
    Evidence,
    difference,
    earlier,
    every_average,
    every_genre,
    fusion,
    least,
    log_cost,
    lowest,
    overfits,
    ratio,
    weak_genres,
    won,
)
from pmmo.analysis.intervals import UNDECIDED, Interval
from pmmo.core.names import AVERAGES
from pmmo.published import paper

HOLDS, FAILS, NOT_RUN = "holds", "does not hold", "not run"
UNTRAINED = "not decidable: a row did not train"
UNKNOWN = Interval(np.nan, -np.inf, np.inf)
STATED = ("key", "statement", "where", "measure", "unit", "paper")  # of a claim
LEAST_P = 1e-9  # below it a p-value is not told apart


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, its place in the paper, and its measure."""

    key: str
    statement: str
    where: str
    measure: str  # description of the number
    unit: str  # F1 | genres | epochs | ratio
    needs: tuple[str, ...]
    differences: Callable[[Evidence], Differences | None]  # in favour of the claim
    summary: Callable[[Differences, float, int], Interval] = least
    split: str = "test"  # whose movies it is measured on
    uses: tuple[str, ...] = ()  # variants that it uses if they were run
    paper: float | None = None  # the paper's number, if it prints one
    threshold: Callable[[Evidence], float] = lambda evidence: 0.0
    strict: bool = True  # False if the threshold itself is enough ("matched or exceeded")
    timed: bool = False  # a clock time, which differs from run to run


def printed(
    better: str,
    worse: str,
    average: str = "weighted",
    table: Mapping[str, paper.Row] = paper.ROWS,
) -> float:
    """The difference of two F-scores as printed."""
    return round(getattr(table[better], average) - getattr(table[worse], average), 3)


def higher(
    key: str, statement: str, better: str, worse: str, where="Table 2", split="test"
) -> Claim:
    """The claim that one variant has a higher weighted F1 than another."""
    return Claim(
        key,
        statement,
        where,
        f"weighted F1 on {split}, difference",
        "F1",
        (better, worse),
        partial(difference, better=better, worse=worse, split=split),
        split=split,
        paper=printed(better, worse) if {better, worse} <= paper.ROWS.keys() else None,
    )


CLAIMS = (
    higher(
        "pmmo-beats-mmo",
        "Variational inference adds: PM+MO scores higher than M+MO",
        BEST,
        "mmo",
        "section 4.2",
    ),
    higher("pmmo-beats-gmu", "PM+MO scores higher than the GMU", BEST, BASELINE, "Table 1"),
    Claim(
        "pmmo-beats-gmu-all-scores",
        "PM+MO scores higher than the GMU on all four F-scores",
        "Table 1",
        "smallest of the four differences",
        "F1",
        (BEST, BASELINE),
        every_average,
        paper=min(printed(BEST, BASELINE, average) for average in AVERAGES),
    ),
    Claim(
        "pmmo-wins-most-genres",
        "PM+MO scores higher than the GMU on most genres",
        "Figure 3",
        "genres won",
        "genres",
        (BEST, BASELINE),
        every_genre,
        won,
        paper=paper.GENRES_WON,
        threshold=lambda evidence: len(evidence.movies.genres) / 2,
    ),
    Claim(
        "pmmo-never-worse-on-weak-genres",
        "PM+MO matches or exceeds the GMU on every genre where the GMU's F1 is below 0.5",
        "section 4.2",
        "smallest F1 difference over those genres",
        "F1",
        (BEST, BASELINE),
        weak_genres,
        strict=False,
    ),
    higher("3000-beats-1024", "Wide layers beat narrower ones", BEST, "pmmo-kl-l2-1024", "Table 1"),
    higher(
        "wide-gmu-loses",
        "A wide GMU scores lower than the GMU",
        BASELINE,
        "gmu-wide",
        "section 4.2",
    ),
    higher("kl-beats-v1", "KL scaling (λKL) beats ELBOv1", "pmmo-kl", "pmmo-v1"),
    higher("v2-beats-v1", "ELBOv2 beats ELBOv1", "pmmo-v2", "pmmo-v1"),
    higher("kl-l2-beats-v2-l2", "λKL + L2 beats ELBOv2 + L2", BEST, "pmmo-v2-l2"),
    higher("l2-helps-kl", "L2 helps λKL", BEST, "pmmo-kl"),
    higher("l2-helps-v2", "L2 helps ELBOv2", "pmmo-v2-l2", "pmmo-v2"),
    higher("l2-helps-v1", "L2 helps ELBOv1", "pmmo-v1-l2", "pmmo-v1"),
    Claim(
        "mmo-lowest",
        "M+MO, without variational inference, is the lowest row of Table 2",
        "Table 2",
        "smallest lead of another row, weighted F1",
        "F1",
        ("mmo",),
        partial(lowest, name="mmo"),
        uses=tuple(paper.TABLE2),
        paper=min(printed(name, "mmo") for name in paper.TABLE2 if name != "mmo"),
    ),
    Claim(
        "fusion-adds",
        "Fusion adds: the GMU scores higher than text alone and than the image alone",
        "Arevalo et al.",
        "smaller of the two differences, weighted F1",
        "F1",
        (BASELINE, *ONE_COLUMN),
        fusion,
        paper=min(printed(BASELINE, name, table=paper.AREVALO) for name in ONE_COLUMN),
    ),
    Claim(
        "unregularised-overfits",
        "Without regularisation the GMU overfits: the gap of train and dev is wider",
        "Figure 2",
        "difference of the train – dev gaps, weighted F1",
        "F1",
        (BASELINE, UNREGULARISED),
        overfits,
        split="dev",
    ),
    higher(
        "unregularised-lower",
        "Without regularisation the GMU peaks lower on dev",
        BASELINE,
        UNREGULARISED,
        "Figure 2",
        "dev",
    ),
    Claim(
        "unregularised-earlier",
        "Without regularisation the GMU peaks earlier on dev",
        "Figure 2",
        "epochs",
        "epochs",
        (BASELINE, UNREGULARISED),
        earlier,
        split="dev",
    ),
    Claim(
        "pmmo-epoch-costs-more",
        "An epoch of PM+MO costs more than an epoch of the GMU",
        "section 4.2",
        "ratio of seconds per epoch",
        "ratio",
        (BEST, BASELINE),
        log_cost,
        ratio,
        paper=round(paper.SECONDS_PER_EPOCH[BEST] / paper.SECONDS_PER_EPOCH[BASELINE], 2),
        threshold=lambda evidence: 1.0,
        timed=True,
    ),
)
# What adds what: from the GMU to PM+MO, one change at a time. A step has the form of a claim and is
# judged as one, but only the last two are also claims of the paper.
STEPS = (
    higher("wide-layers", "Wide layers add to the GMU", "gmu-wide", BASELINE, "–"),
    higher(
        "second-objective", "The second module and objective add to that", "mmo", "gmu-wide", "–"
    ),
    higher(
        "variational-inference", "Variational inference adds to that", BEST, "mmo", "section 4.2"
    ),
    higher("all-steps", "All three together", BEST, BASELINE, "Table 1"),
)


def p_value(decided: Callable[[float], bool]) -> float:
    """The smallest 1 - level at which the interval decides, of LEAST_P to 1.

    Intervals at lower levels lie inside those at higher ones, so one that decides goes on to.
    """
    low, high = LEAST_P, 1 - LEAST_P
    if not decided(1 - high):
        return 1.0
    while high / low > 1 + 1e-6:
        middle = np.sqrt(low * high)
        low, high = (low, middle) if decided(1 - middle) else (middle, high)
    return float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those at most x are all right with probability 1 - x or more.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is below one before.
    """
    order = np.argsort(p_values)
    raised = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return adjusted.tolist()


def judge(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    """The measured number, interval, verdict and p-value of one claim."""
    absent = [name for name in claim.needs if name not in evidence.runs]
    rests_on = () if claim.timed else tuple(dict.fromkeys((*claim.needs, *claim.uses)))
    untrained = [name for name in rests_on if name in evidence.untrained]
    stated = {name: getattr(claim, name) for name in STATED} | {
        "absent": absent,
        "untrained": untrained,
        "rising": [name for name in rests_on if name in evidence.rising],
    }
    if absent:
        unknown = dict.fromkeys(("threshold", "ours", "low", "high", "p"))
        return stated | unknown | {"verdict": NOT_RUN}
    found, threshold = claim.differences(evidence), claim.threshold(evidence)
    margin = evidence.margin if claim.unit == "F1" else 0.0

    def at(level: float) -> Interval:
        return UNKNOWN if found is None else claim.summary(found, level, evidence.seed)

    def word(interval: Interval) -> str:
        return interval.verdict(HOLDS, FAILS, threshold, margin, claim.strict)

    interval = at(evidence.level)
    judged = not (untrained or claim.timed)
    return stated | {
        "threshold": threshold,
        **interval.named("ours"),
        "p": p_value(lambda level: word(at(level)) != UNDECIDED) if judged else None,
        "verdict": UNTRAINED if untrained else word(interval),
    }


def judge_all(evidence: Evidence) -> list[dict[str, Any]]:
    """Every claim, the central one first; those that are judged also with Holm's correction."""
    judged = [judge(claim, evidence) for claim in CLAIMS if not claim.timed]
    together = [claim for claim in judged if claim["p"] is not None]
    adjusted = iter(holm([claim["p"] for claim in together]))
    for claim in judged:
        claim["p_holm"] = None if claim["p"] is None else next(adjusted)
        decided = claim["p_holm"] is None or claim["p_holm"] <= 1 - evidence.level
        claim["verdict_holm"] = claim["verdict"] if decided else UNDECIDED
    return judged


def judge_timed(evidence: Evidence) -> list[dict[str, Any]]:
    """Every claim that the clock decides."""
    return [judge(claim, evidence) for claim in CLAIMS if claim.timed]


def judge_steps(evidence: Evidence) -> list[dict[str, Any]]:
    """What each step from the GMU to PM+MO adds."""
    return [judge(step, evidence) for step in STEPS]


def as_metrics(judged: list[dict]) -> dict[str, dict[str, object]]:
    """{claim: {paper, ours, low, high, verdict}} for `dvc metrics`."""
    return {
        claim["key"]: {
            key: claim[key]
            for key in ("paper", "ours", "low", "high", "verdict")
            if claim[key] is not None
        }
        for claim in judged
    }
