"""What an encoder is, and what all of them need: optional packages, hashes of weights."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pmmo.core.errors import PmmoError
from pmmo.core.text import name
from pmmo.hdf5.encoders import Identity

REMEDY = "pip install -c constraints.txt -r requirements-embed.txt"


@dataclass(frozen=True)
class Encoder:
    """A function from plots or posters to vectors."""

    identity: Identity
    width: int
    prepare: Callable[[Any], Any]  # one plot (text) or poster (PIL image) -> what `encode` takes
    encode: Callable[[Sequence[Any]], np.ndarray]  # n of them -> (n, width); NaN: nothing is known


def optional(package: str) -> Any:
    """A package of the extra `embed`; PmmoError where it is missing or cannot be loaded."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module(package)
    except ModuleNotFoundError as error:
        raise PmmoError(
            f"this encoder needs the package {error.name}, which is missing: {REMEDY}"
        ) from None
    except (ImportError, RuntimeError, OSError, AttributeError, ValueError) as error:
        raise PmmoError(
            f"the package {package} cannot be loaded ({error!s:.200}). Most often it was built for "
            "another release or build of torch or numpy: install the one that fits yours."
        ) from None


def weights_at(path: Path, what: str) -> Path:
    """The path of a file or folder of weights; PmmoError where there is none."""
    if not path.is_file() and not path.is_dir():
        raise PmmoError(f"{path}: there is no {what}. Nothing is downloaded: give a local path.")
    return path


def sha256(path: Path) -> str:
    """Of a file; of a folder, over the names and hashes of its files."""
    return digest(path) if path.is_file() else combined(path.rglob("*"), path)


def combined(paths: Iterable[Path], folder: Path) -> str:
    files = sorted(path for path in paths if path.is_file() and path.suffix != ".pyc")
    lines = [f"{path.relative_to(folder).as_posix()}\0{digest(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PmmoError(
            f"{path}: cannot be opened ({error.strerror}). Check the path and that you may read it."
        ) from None


def identity(kind: str, path: Path, version: str, hashed: str | None = None) -> Identity:
    """Name, file, version and hash of an encoder."""
    return Identity(kind, name(path.name), version, hashed or sha256(path))
