"""The case that one process of the benchmark measures, and the sizes of a whole run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmmo.config.settings import Precision, Settings
from pmmo.params import load_params

PHASES = ("data", "draw", "forward", "backward", "KL", "update")
COMPILED = ("compiled", "together-compiled")  # contenders with `compile: true`


@dataclass(frozen=True)
class Shape:
    """The sizes of the movies in a step; those of the published file by default."""

    text: int = 300
    image: int = 4096
    genres: int = 23
    movies: int = 15_552  # the training set
    dev: int = 2608


@dataclass(frozen=True)
class Case:
    """One contender at one size, measured in its own process."""

    contender: str  # `bound`, or a key of `runner.BUILDERS`
    settings: Settings
    shape: Shape
    threads: int = 1
    device: str = "cpu"

    @property
    def precision(self) -> str:
        return self.settings.precision

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.shape.movies // self.settings.batch_size)

    @property
    def mode(self) -> str:
        if self.device == "cuda":
            return f"GPU, {self.precision}"
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    def __str__(self) -> str:
        return f"{self.contender}, width {self.settings.width}, {self.mode}"


def paper_settings(path: Path = Path("params.yaml")) -> dict[str, Settings]:
    """The settings of the timed variants, at the paper's sizes for any `scale`.

    C is smaller than in the study, and the same for all: 512 units, in the GMU's order, which the
    peers have too. The cost of A's random weights then shows.
    """
    rows = load_params(path, scale="paper").rows
    return {
        system: replace(rows[row], maxout_units=512, classifier_order="gmu")
        for system, row in (("pmmo", "pmmo-kl-l2"), ("mmo", "mmo"), ("gmu", "gmu"))
    }


def case_of(
    contender: str,
    width: int,
    settings: Mapping[str, Settings],
    shape: Shape,
    device: str = "cpu",
    precision: Precision = "float32",
    threads: int = 1,
) -> Case:
    """A contender at `width`, which only the GMU does not take over: it keeps its own.

    A contender without settings of its own has PM+MO's.
    """
    changes: dict[str, Any] = {"precision": precision}
    if contender != "gmu":
        changes["width"] = width
    if contender in COMPILED:
        changes["compile"] = True
    own = replace(settings.get(contender, settings["pmmo"]), **changes)
    return Case(contender, own, shape, threads, device)
