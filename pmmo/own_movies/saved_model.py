"""Read the model that a run keeps: model.safetensors (values) and model.json (what they mean)."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.hdf5.encoders import Identity, read_encoders
from pmmo.hdf5.layout_checks import name_problem
from pmmo.model.build import build_system
from pmmo.model.systems import Sizes, System

VALUES, CARD = "model.safetensors", "model.json"
CARD_BYTES = 16 << 20
MOST = 2**53  # of any number: all up to it are whole in a float
MOST_DRAWS = 10_000
REMEDY = "Copy it again from where it was trained, or have `dvc repro` make it anew."


class Card(TypedDict):
    """model.json, checked."""

    settings: Settings
    sizes: Sizes
    genres: tuple[str, ...]
    nan_text: str
    cycle: int
    encoders: Mapping[str, Identity]


@dataclass(frozen=True)
class Model:
    """A trained system in evaluation mode and what its inputs and outputs are."""

    system: System
    genres: tuple[str, ...]  # in the order of the outputs
    nan_text: str  # what training did with movies without text: zeros or error
    cycle: int
    encoders: Mapping[str, Identity] = field(default_factory=dict)  # of the training features

    @property
    def seed(self) -> int:
        """The seed of the cycle, from which the run drew its posterior samples."""
        return self.system.settings.seed + self.cycle


def model_files(path: Path) -> tuple[Path, Path]:
    """Values and card of the model in a run's folder, or of either of the two files."""
    folder = path.parent if path.name in (VALUES, CARD) else path
    return folder / VALUES, folder / CARD


def load_model(path: Path, device: torch.device) -> Model:
    """The model of a run's folder, or of either of its two files; PmmoError if it is damaged."""
    for file in model_files(path):
        if not os.path.isfile(file):  # noqa: PTH113 (not even where the name is too long)
            raise PmmoError(
                f"{file}: there is no such file. Give the folder of a run, such as "
                "runs/rows/gmu or runs/experiment; `dvc repro` trains them, `dvc checkout` brings "
                "trained ones back."
            )
    folder = file.parent
    card = _read_card(folder / CARD)
    state = _read_values(folder / VALUES)
    _check_bounds(card, state, folder)
    _check_shapes(card, state, folder)
    with torch.random.fork_rng():
        system = build_system(card["settings"], card["sizes"])
    system.load_state_dict(state)
    return Model(
        system=system.to(device).eval(),
        genres=card["genres"],
        nan_text=card["nan_text"],
        cycle=card["cycle"],
        encoders=card["encoders"],
    )


def _read_card(path: Path) -> Card:
    try:
        if (size := path.stat().st_size) > CARD_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {CARD_BYTES:,}")
        card = json.loads(path.read_text(encoding="utf-8"))
        if missing := {"settings", "sizes", "cycle", "genres", "nan_text"} - set(card):
            raise ValueError(f"it lacks {sorted(missing)[0]!r}")
        sizes, genres = Sizes(**card["sizes"]), card["genres"]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError("its sizes are not whole numbers above 0")
        if not isinstance(genres, list) or not all(isinstance(name, str) for name in genres):
            raise ValueError("its genres are not a list of names")
        if len(genres) != sizes.genres:
            raise ValueError(f"it names {len(genres)} genres for {sizes.genres} outputs")
        settings = Settings(**card["settings"])
        if not isinstance(settings.name, str) or not isinstance(settings.label, str):
            raise ValueError("its name and label are not texts")
        if problem := name_problem(genres) or name_problem([settings.name, settings.label]):
            raise ValueError(problem)
        if type(card["cycle"]) is not int or card["nan_text"] not in ("zeros", "error"):
            raise ValueError("its cycle or nan_text is no such thing")
        return {
            "settings": settings,
            "sizes": sizes,
            "genres": tuple(genres),
            "nan_text": card["nan_text"],
            "cycle": card["cycle"],
            "encoders": read_encoders(card.get("provenance")),
        }
    except (OSError, ValueError, TypeError, RecursionError, PmmoError) as error:
        why = " ".join(str(error).split())[:300]
        raise PmmoError(f"{path}: does not describe a model ({why}). {REMEDY}") from None


def _read_values(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise PmmoError(f"{path}: is no safetensors file, or damaged ({error}). {REMEDY}") from None


def _check_bounds(card: Card, state: dict[str, Tensor], folder: Path) -> None:
    """PmmoError where a number of the card is beyond what its values can be; nothing is built yet.

    A layer has at least as many values as it is wide.
    """
    values = sum(tensor.numel() for tensor in state.values())
    settings, sizes = asdict(card["settings"]), card["sizes"]._asdict()
    highest = dict.fromkeys((*sizes, "width", "maxout_pieces", "maxout_units"), values)
    highest |= {"movies": MOST, "maxout_layers": len(state), "posterior_samples": MOST_DRAWS}
    for name, value in (settings | sizes | {"cycle": card["cycle"]}).items():
        high = highest.get(name, MOST)
        if isinstance(value, int | float) and not -high <= value <= high:
            raise PmmoError(
                f"{folder / CARD}: {name} is {value!r:.20}, which does not fit {VALUES} beside it "
                f"(at most {high:,}). {REMEDY}"
            )


def _check_shapes(card: Card, state: dict[str, Tensor], folder: Path) -> None:
    """PmmoError where the values are not those of the card's system; nothing large is built yet."""
    try:
        with torch.device("meta"), torch.random.fork_rng():
            wanted = build_system(card["settings"], card["sizes"]).state_dict()
    except (RuntimeError, OverflowError) as error:  # more than can be addressed
        raise PmmoError(
            f"{folder / CARD}: does not describe a model ({error!s:.200}). {REMEDY}"
        ) from None
    for name in sorted(wanted.keys() | state.keys()):
        found = [
            f"{tuple(tensors[name].shape)} {tensors[name].dtype}" if name in tensors else "absent"
            for tensors in (state, wanted)
        ]
        if found[0] != found[1]:
            raise PmmoError(
                f"{folder / VALUES}: does not fit {CARD} beside it (tensor {name!r:.100}: "
                f"{found[0]}, expected {found[1]}). {REMEDY}"
            )
        if not torch.isfinite(state[name]).all():
            raise PmmoError(f"{folder / VALUES}: tensor {name!r} is not finite. {REMEDY}")
