"""decision.json beside a model: what dev says of its predictors, and which of them decides.

A predictor is the best cycle's model (`single`), or the mean of all cycles' (`ensemble`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmmo.core.errors import PmmoError
from pmmo.core.writing import write_text

DECISION = "decision.json"
STATISTICS = ("running", "evaluation_set")  # by which batch norm normalises
PREDICTORS = ("single", "ensemble")
BYTES = 16 << 20
MOST_CYCLES = 1_000
MOST_NLL = 20.0  # nats: that of the smallest probability is 16
REMEDY = "Copy it again from where it was trained, or have `dvc repro` make it anew."


@dataclass(frozen=True)
class Fitted:
    """Of one predictor, from its probabilities on dev; G genres."""

    thresholds: tuple[float, ...]  # of best F1, by genre
    temperature: float
    f1: float  # weighted, at the run's one threshold
    f1_thresholds: float  # with a threshold per genre, cross-fitted
    nll: float
    nll_calibrated: float  # cross-fitted


@dataclass(frozen=True)
class Decision:
    """What `predict` does by default, and what it can do."""

    best: int  # the cycle of `single`
    cycles: tuple[int, ...]  # whose models are kept, in the order of their mean
    ensemble: bool  # the choice
    thresholds: bool
    calibrated: bool
    fitted: Mapping[str, Mapping[str, Fitted]]  # statistics -> predictor

    @property
    def predictor(self) -> str:
        return PREDICTORS[self.ensemble]


def values_name(cycle: int, decision: Decision) -> str:
    """The file of a cycle's model: the best one's is that which everybody reads."""
    return "model.safetensors" if cycle == decision.best else f"model-{cycle}.safetensors"


def mean_of(probabilities: np.ndarray) -> np.ndarray:
    """The ensemble's probabilities (N, G) from its models' (C, N, G): the same bits everywhere."""
    return probabilities.mean(axis=0)


def write_decision(path: Path, decision: Decision) -> None:
    write_text(path, json.dumps(asdict(decision), indent=1))  # unrounded, so that none flips


def read_decision(path: Path, genres: int) -> Decision:
    """The decision of a run with that many genres; PmmoError if it is damaged or of another run."""
    try:
        if (size := path.stat().st_size) > BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {BYTES:,}")
        found = json.loads(path.read_text(encoding="utf-8"))
        fitted = {
            _one_of(STATISTICS, statistics): {
                _one_of(PREDICTORS, name): _fitted(entry, genres) for name, entry in own.items()
            }
            for statistics, own in found.pop("fitted").items()
        }
        decision = Decision(**(found | {"cycles": tuple(found["cycles"]), "fitted": fitted}))
        _check(decision)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:300]
        raise PmmoError(f"{path}: does not describe a decision ({why}). {REMEDY}") from None
    return decision


def _one_of(names: tuple[str, ...], name: str) -> str:
    if name not in names:
        raise ValueError(f"{name!r:.50} is none of {', '.join(names)}")
    return name


def _fitted(entry: dict[str, Any], genres: int) -> Fitted:
    thresholds = entry["thresholds"]
    if not isinstance(thresholds, list) or len(thresholds) != genres:
        raise ValueError(f"its thresholds are not {genres} numbers, one per genre")
    if not all(_number(value, 1) for value in thresholds):
        raise ValueError("a threshold is not between 0 and 1")
    fitted = Fitted(**(entry | {"thresholds": tuple(map(float, thresholds))}))
    highest = {"f1": 1, "f1_thresholds": 1, "nll": MOST_NLL, "nll_calibrated": MOST_NLL}
    for name, high in highest.items():
        if not _number(getattr(fitted, name), high):
            raise ValueError(f"{name} is no number from 0 to {high:g}")
    if not _number(fitted.temperature, 1e6) or fitted.temperature < 1e-6:
        raise ValueError("its temperature is no number above 0")
    return fitted


def _number(value: Any, high: float) -> bool:
    return type(value) in (int, float) and 0 <= value <= high


def _check(decision: Decision) -> None:
    cycles = decision.cycles
    if len(cycles) > MOST_CYCLES or not all(
        type(cycle) is int and 0 <= cycle < MOST_CYCLES for cycle in (*cycles, decision.best)
    ):
        raise ValueError(f"its cycles are not numbers below {MOST_CYCLES}")
    if len(set(cycles)) != len(cycles) or decision.best not in cycles:
        raise ValueError("a cycle is there twice, or the best one is not")
    if not all(type(value) is bool for value in _choice(decision)):
        raise ValueError("its choice is not true or false")
    wanted = set(PREDICTORS[: 1 + (len(cycles) > 1)])
    if "running" not in decision.fitted or any(
        set(own) != wanted for own in decision.fitted.values()
    ):
        raise ValueError("its predictors are not those of its cycles")
    if decision.ensemble and len(cycles) == 1:
        raise ValueError("it chooses an ensemble of one")


def _choice(decision: Decision) -> tuple[bool, ...]:
    return decision.ensemble, decision.thresholds, decision.calibrated
