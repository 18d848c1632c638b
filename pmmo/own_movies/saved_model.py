"""Read the models that a run keeps: values, what they mean (model.json), how they decide."""

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
from pmmo.decisions.stored import DECISION, REMEDY, Decision, read_decision, values_name
from pmmo.hdf5.encoders import Identity, read_encoders
from pmmo.hdf5.layout_checks import name_problem
from pmmo.model.build import build_system
from pmmo.model.systems import Sizes, System
from pmmo.training.reference import FAR, Reference, read_reference

VALUES, CARD = "model.safetensors", "model.json"
CARD_BYTES = 16 << 20
MOST = 2**53  # of any number: all up to it are whole in a float
MOST_DRAWS = 10_000


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


def folder_of(path: Path) -> Path:
    """The folder of a run, of which `path` may be the best model's values or card."""
    return path.parent if path.name in (VALUES, CARD) else path


def model_files(path: Path) -> list[Path]:
    """The files of the models in a run's folder; those of the best one come first."""
    folder = folder_of(path)
    others = sorted(folder.glob("model-*.safetensors")) if os.path.isdir(folder) else []  # noqa: PTH112
    return [*(folder / name for name in (VALUES, CARD, DECISION, FAR)), *others]


def load_model(path: Path, device: torch.device) -> Model:
    """The best model of a run's folder, or of either of its two files; PmmoError if damaged."""
    folder = folder_of(path)
    for file in (folder / VALUES, folder / CARD):
        if not os.path.isfile(file):  # noqa: PTH113 (not even where the name is too long)
            raise PmmoError(
                f"{file}: there is no such file. Give the folder of a run, such as "
                "runs/rows/gmu or runs/experiment; `dvc repro` trains them, `dvc checkout` brings "
                "trained ones back."
            )
    return _build(_read_card(folder / CARD), folder / VALUES, device)


def load_decision(path: Path, model: Model) -> Decision | None:
    """How the models of a run decide; None where it is not there. PmmoError if it is damaged."""
    file = folder_of(path) / DECISION
    if not file.is_file():
        return None
    decision = read_decision(file, len(model.genres))
    if decision.best != model.cycle:
        raise PmmoError(
            f"{file}: does not describe a decision (its best cycle is {decision.best}, that of "
            f"{CARD} beside it {model.cycle}). {REMEDY}"
        )
    return decision


def load_reference(path: Path, model: Model) -> Reference | None:
    """What is far from the training movies; None where it is not there. PmmoError if damaged."""
    file, sizes = folder_of(path) / FAR, model.system.sizes
    return read_reference(file, sizes.text, sizes.image) if file.is_file() else None


def load_ensemble(
    path: Path, best: Model, decision: Decision, device: torch.device
) -> tuple[Model, ...]:
    """The models of all cycles, in the order of their mean; PmmoError if one cannot be had."""
    folder = folder_of(path)
    card = _read_card(folder / CARD)
    models = []
    for cycle in decision.cycles:
        file = folder / values_name(cycle, decision)
        if not file.is_file():
            raise PmmoError(
                f"{file}: there is no such file, and {DECISION} beside it needs it for the "
                f"ensemble of {len(decision.cycles)}. Copy it too, or take the best model alone: "
                "--single."
            )
        own: Card = {**card, "cycle": cycle}
        models.append(best if cycle == decision.best else _build(own, file, device))
    return tuple(models)


def _build(card: Card, values: Path, device: torch.device) -> Model:
    state = _read_values(values)
    _check_bounds(card, state, values)
    _check_shapes(card, state, values)
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


def _check_bounds(card: Card, state: dict[str, Tensor], path: Path) -> None:
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
                f"{path.parent / CARD}: {name} is {value!r:.20}, which does not fit {path.name} "
                f"beside it (at most {high:,}). {REMEDY}"
            )


def _check_shapes(card: Card, state: dict[str, Tensor], path: Path) -> None:
    """PmmoError where the values are not those of the card's system; nothing large is built yet."""
    try:
        with torch.device("meta"), torch.random.fork_rng():
            wanted = build_system(card["settings"], card["sizes"]).state_dict()
    except (RuntimeError, OverflowError) as error:  # more than can be addressed
        raise PmmoError(
            f"{path.parent / CARD}: does not describe a model ({error!s:.200}). {REMEDY}"
        ) from None
    for name in sorted(wanted.keys() | state.keys()):
        found = [
            f"{tuple(tensors[name].shape)} {tensors[name].dtype}" if name in tensors else "absent"
            for tensors in (state, wanted)
        ]
        if found[0] != found[1]:
            raise PmmoError(
                f"{path}: does not fit {CARD} beside it (tensor {name!r:.100}: "
                f"{found[0]}, expected {found[1]}). {REMEDY}"
            )
        if not torch.isfinite(state[name]).all():
            raise PmmoError(f"{path}: tensor {name!r} is not finite. {REMEDY}")
