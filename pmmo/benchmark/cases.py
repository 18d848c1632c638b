"""The case that one process of the benchmark measures, and the sizes of a whole run."""

from dataclasses import dataclass, replace
from pathlib import Path

from pmmo.config.settings import Precision, Settings
from pmmo.params import load_params

PHASES = ("data", "draw", "forward", "backward", "KL", "update")


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

    contender: str  # a key of `runner.CONTENDERS`
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


def at_width(settings: Settings, width: int, precision: Precision = "float32") -> Settings:
    return replace(settings, width=width, precision=precision)
