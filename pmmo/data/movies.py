"""Load `data/tensors`: the movies as tensors that stay on disk until they are used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pmmo.core.errors import PmmoError
from pmmo.core.names import CATALOGUE, SPLITS

TYPES = {"text": torch.float32, "image": torch.float32, "genres": torch.uint8}


@dataclass(frozen=True)
class Movies:
    """All movies, one per row, in the order of the file; N movies, G genres."""

    text: torch.Tensor  # (N, T) float32, memory-mapped
    image: torch.Tensor  # (N, I) float32, memory-mapped
    genres: torch.Tensor  # (N, G) uint8, 0 or 1
    ids: tuple[str, ...]  # N
    genre_names: tuple[str, ...]  # G
    splits: Mapping[str, slice]  # train, dev, test -> rows
    provenance: Mapping[str, object]
    nan_text: Mapping[str, object]  # policy, count and ids of movies without a text vector
    unlabelled: int  # movies without any genre

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Text (n, T), image (n, I) and genres (n, G) of one split, as views."""
        rows = self.splits[name]
        return self.text[rows], self.image[rows], self.genres[rows]


def load_movies(folder: Path) -> Movies:
    """The movies that `extract` wrote to `folder`; PmmoError where files are missing or differ."""
    try:
        catalogue = json.loads((folder / CATALOGUE).read_text(encoding="utf-8"))
        tensors = {key: _tensor(folder / f"{key}.safetensors", key) for key in TYPES}
        rows, genres = len(catalogue["ids"]), len(catalogue["genres"])
        for key, tensor in tensors.items():
            width = genres if key == "genres" else tensor.shape[-1]
            if tensor.shape != (rows, width) or tensor.dtype != TYPES[key]:
                raise ValueError(
                    f"{key} is {tuple(tensor.shape)} {tensor.dtype}, expected "
                    f"({rows}, {width}) {TYPES[key]}"
                )
        splits = {name: slice(*catalogue["splits"][name]) for name in SPLITS}
        return Movies(
            **tensors,
            ids=tuple(catalogue["ids"]),
            genre_names=tuple(catalogue["genres"]),
            splits=splits,
            provenance=catalogue["provenance"],
            nan_text=catalogue["nan_text"],
            unlabelled=catalogue["unlabelled"],
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise PmmoError(
            f"{folder}: is not what the stage extract writes ({error}). Run `dvc repro extract`."
        ) from None


def _tensor(path: Path, key: str) -> torch.Tensor:
    """One tensor whose pages are read from the file when they are first used."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key)
