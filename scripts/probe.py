"""Common parts of the scripts: settings, movies, a system, the terms of module A's objective."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.core.names import SCALES
from pmmo.data.extract import extract
from pmmo.fetching.fetch import fetch
from pmmo.model.build import build_system
from pmmo.model.systems import Batch, System
from pmmo.model.variational import BayesianFusion
from pmmo.params import load_params
from pmmo.training.device import choose_device
from pmmo.training.loop import Splits, sizes_of, train_epoch
from pmmo.training.variant import load_splits

ROOT = Path(__file__).resolve().parent.parent


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=ROOT / "data/tensors", help="of `extract`")
    parser.add_argument("--scale", choices=SCALES, default="demo")
    parser.add_argument("--epochs", type=int, help="default: those of the scale")
    return parser


def row(name: str, scale: str, epochs: int | None) -> Settings:
    """A variant of params.yaml at `scale`, for any scale in the file."""
    settings = load_params(ROOT / "params.yaml", scale).rows[name]
    return settings if epochs is None else replace(settings, epochs=epochs)


def tensors_of(source: str, rows: int | None, folder: Path) -> Path:
    """Fetch and extract a source as in the pipeline, to below `folder`; `rows` if synthetic."""
    settings = load_params(scale="demo").data
    movies, tensors, limit = folder / "movies.hdf5", folder / "tensors", settings.memory_limit_gb
    fetch(
        movies,
        source=source,
        rows=rows,
        seed=settings.seed,
        memory_limit_gb=limit,
        work=folder / "fetch",
    )
    extract(movies, tensors, nan_text=settings.nan_text, memory_limit_gb=limit)
    return tensors


def load(folder: Path) -> Splits:
    """Train, dev and test of `folder`, on a GPU if there is one."""
    try:
        return load_splits(folder, choose_device("auto"))
    except PmmoError as error:
        sys.exit(str(error))


def begin(settings: Settings, splits: Splits) -> Any:
    """A `System`, untyped: torch types what a module holds as `Tensor | Module`."""
    torch.manual_seed(0)
    return build_system(settings, sizes_of(splits)).to(splits["train"].text.device)


def train(system: System, splits: Splits, epoch: int) -> None:
    generator = torch.Generator(splits["train"].text.device).manual_seed(epoch)
    train_epoch(system, splits["train"], epoch, [generator])


def module_a(system: System) -> BayesianFusion:
    """A copy of PM+MO's module A that no optimiser updates, for gradients of single terms."""
    fusion: Any = system.build_fusion().to(next(system.parameters()).device)
    fusion.load_state_dict(system.fusion.state_dict())
    return fusion


def traces(system: System, fusion: BayesianFusion, batch: Batch) -> tuple:
    """Traces of guide and model at one draw, with `batch` in place of the training set."""
    text, image = system.inputs(batch.text, batch.image)
    return fusion.traces(
        text, image, batch.genres, readout=system.readout, movies=system.sizes.movies
    )


def learned(fusion: BayesianFusion, kind: str) -> list[Tensor]:
    """The posterior's parameters of one kind: `loc` or `log_scale`."""
    named = fusion.guide.named_parameters()
    return [value for name, value in named if name.split(".")[0] == kind]
