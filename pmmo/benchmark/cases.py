"""What one process of the benchmark measures, and the sizes of a whole run."""

from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from pmmo.config.settings import Settings
from pmmo.params import resolve_row

PHASES = ("data", "draw", "forward", "backward", "KL", "update")


@dataclass(frozen=True)
class Shape:
    """The movies that a step sees; the published file's by default."""

    text: int = 300
    image: int = 4096
    genres: int = 23
    movies: int = 15_552  # the training set
    dev: int = 2608


@dataclass(frozen=True)
class Case:
    """One contender at one size, in a process of its own."""

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
    """The rows that are timed, at the paper's sizes whatever `scale` says."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) | {"scale": "paper"}
    rows = {"pmmo": "pmmo-kl-l2", "mmo": "mmo", "gmu": "gmu"}
    return {
        system: resolve_row(tree, row, tree["variants"][row])[0] for system, row in rows.items()
    }


def at_width(settings: Settings, width: int, precision: str = "float32") -> Settings:
    return replace(settings, width=width, precision=precision)
