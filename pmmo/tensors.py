"""The files of `data/tensors`: their names, the header of a tensor, the catalogue.

columns.py fills the tensors, data.py reads them. The format
(https://github.com/huggingface/safetensors): an 8-byte little-endian length, a JSON header of that
length, and the values.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

KEYS = ("text", "image", "genres")
TYPES = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
CATALOGUE = "movies.json"


def header(key: str, kind: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the values of the tensor `key` of type `kind` (F32 or U8)."""
    length = prod(shape) * TYPES[kind].itemsize
    entry = {key: {"dtype": kind, "shape": list(shape), "data_offsets": [0, length]}}
    text = json.dumps(entry, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the values start at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def write_catalogue(folder: Path, catalogue: Mapping[str, object]) -> None:
    """Write movies.json: what the rows of the tensors mean and where they come from."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in catalogue.items()]
    (folder / CATALOGUE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
