"""The paper's claims, each with a paired interval and a verdict; docs/claims.md defines them.

A claim states that a quantity lies above a threshold. It *holds* if the whole interval lies above
the threshold, *does not hold* if the whole interval lies below, and is *undecided* if the interval
covers the threshold. A claim about a variant that params.yaml leaves out is *not run*.
A claim that rests on a variant that did not train (`guard.py`) is *not decidable*.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pmmo.analysis.comparisons import (
    BASELINE,
    BEST,
    ONE_COLUMN,
    UNREGULARISED,
    Evidence,
    cost_ratio,
    difference,
    earlier,
    every_average,
    fusion,
    genres_won,
    lowest,
    overfits,
    weak_genres,
)
from pmmo.analysis.intervals import Interval
from pmmo.core.names import AVERAGES
from pmmo.published import paper

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
UNTRAINED = "not decidable: a row did not train"


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, its place in the paper, and its measure."""

    key: str
    statement: str
    where: str
    measure: str  # description of the number
    unit: str  # F1 | genres | epochs | ratio
    needs: tuple[str, ...]
    interval: Callable[[Evidence], Interval]
    uses: tuple[str, ...] = ()  # variants that it uses if they were run
    paper: float | None = None  # the paper's number, if it prints one
    threshold: Callable[[Evidence], float] = lambda evidence: 0.0
    strict: bool = True  # False if the threshold itself is enough ("matched or exceeded")
    timed: bool = False  # a clock time, which differs from run to run


def higher(
    key: str, statement: str, better: str, worse: str, where="Table 2", split="test"
) -> Claim:
    """The claim that one variant has a higher weighted F1 than another."""
    printed = [paper.ROWS[name].weighted for name in (better, worse) if name in paper.ROWS]
    return Claim(
        key,
        statement,
        where,
        f"weighted F1 on {split}, difference",
        "F1",
        (better, worse),
        partial(difference, better=better, worse=worse, split=split),
        paper=round(printed[0] - printed[1], 3) if len(printed) == 2 else None,
    )


CLAIMS = (
    higher("pmmo-beats-gmu", "PM+MO scores higher than the GMU", BEST, BASELINE, "Table 1"),
    Claim(
        "pmmo-beats-gmu-all-scores",
        "PM+MO scores higher than the GMU on all four F-scores",
        "Table 1",
        "smallest of the four differences",
        "F1",
        (BEST, BASELINE),
        every_average,
        paper=round(
            min(
                getattr(paper.ROWS[BEST], average) - getattr(paper.ROWS[BASELINE], average)
                for average in AVERAGES
            ),
            3,
        ),
    ),
    Claim(
        "pmmo-wins-most-genres",
        "PM+MO scores higher than the GMU on most genres",
        "Figure 3",
        "genres won",
        "genres",
        (BEST, BASELINE),
        genres_won,
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
        paper=round(
            min(row.weighted for name, row in paper.TABLE2.items() if name != "mmo")
            - paper.TABLE2["mmo"].weighted,
            3,
        ),
    ),
    Claim(
        "fusion-adds",
        "Fusion adds: the GMU scores higher than text alone and than the image alone",
        "Arevalo et al.",
        "smaller of the two differences, weighted F1",
        "F1",
        (BASELINE, *ONE_COLUMN),
        fusion,
        paper=round(
            paper.AREVALO[BASELINE].weighted
            - max(paper.AREVALO[name].weighted for name in ONE_COLUMN),
            3,
        ),
    ),
    Claim(
        "unregularised-overfits",
        "Without regularisation the GMU overfits: the gap of train and dev is wider",
        "Figure 2",
        "difference of the train – dev gaps, weighted F1",
        "F1",
        (BASELINE, UNREGULARISED),
        overfits,
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
    ),
    Claim(
        "pmmo-epoch-costs-more",
        "An epoch of PM+MO costs more than an epoch of the GMU",
        "section 4.2",
        "ratio of seconds per epoch",
        "ratio",
        (BEST, BASELINE),
        cost_ratio,
        paper=round(paper.SECONDS_PER_EPOCH[BEST] / paper.SECONDS_PER_EPOCH[BASELINE], 2),
        threshold=lambda evidence: 1.0,
        timed=True,
    ),
)


def verdict(interval: Interval, threshold: float, strict: bool = True) -> str:
    """The verdict from the position of the interval relative to the threshold."""
    if interval.low > threshold or (not strict and interval.low == threshold):
        return HOLDS
    return FAILS if interval.high < threshold else UNDECIDED


def judge(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    """The measured number, interval and verdict of one claim."""
    absent = [name for name in claim.needs if name not in evidence.runs]
    rests_on = dict.fromkeys((*claim.needs, *claim.uses))
    untrained = [name for name in rests_on if name in evidence.untrained and not claim.timed]
    stated = {
        "key": claim.key,
        "statement": claim.statement,
        "where": claim.where,
        "measure": claim.measure,
        "unit": claim.unit,
        "paper": claim.paper,
        "absent": absent,
        "untrained": untrained,
    }
    if absent:
        unknown = dict.fromkeys(("threshold", "ours", "low", "high"))
        return stated | unknown | {"verdict": NOT_RUN}
    interval, threshold = claim.interval(evidence), claim.threshold(evidence)
    return stated | {
        "threshold": threshold,
        "ours": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "verdict": UNTRAINED if untrained else verdict(interval, threshold, claim.strict),
    }


def judge_all(evidence: Evidence) -> list[dict[str, object]]:
    """Every claim, in the paper's order."""
    return [judge(claim, evidence) for claim in CLAIMS if not claim.timed]


def judge_timed(evidence: Evidence) -> list[dict[str, object]]:
    """Every claim that the clock decides."""
    return [judge(claim, evidence) for claim in CLAIMS if claim.timed]


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
