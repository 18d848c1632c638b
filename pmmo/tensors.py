"""Write `data/tensors`: raw values straight into safetensors files, without holding a column.

Reading is data.py's part. The format (https://github.com/huggingface/safetensors): an 8-byte
little-endian length, a JSON header of that length, and the values.
"""

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import numpy as np

KEYS = ("text", "image", "genres")
TYPES = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
CATALOGUE = "movies.json"


def write_tensor(
    path: Path, key: str, kind: str, shape: tuple[int, ...], chunks: Iterable[np.ndarray]
) -> None:
    """Write one tensor `key` of type `kind` (F32 or U8); `chunks` are its rows in order."""
    length = prod(shape) * TYPES[kind].itemsize
    header = {key: {"dtype": kind, "shape": list(shape), "data_offsets": [0, length]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the values start at a multiple of 8
    with path.open("wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for chunk in chunks:
            if chunk.dtype != TYPES[kind]:
                raise TypeError(f"{key}: {chunk.dtype} given for {kind}")
            view = memoryview(chunk).cast("B")
            while view:
                view = view[file.write(view) :]
        if file.tell() != 8 + len(text) + length:
            raise ValueError(f"{key}: the rows given do not fill shape {shape}")


def write_catalogue(folder: Path, catalogue: Mapping[str, object]) -> None:
    """Write movies.json: what the rows of the tensors mean and where they come from."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in catalogue.items()]
    (folder / CATALOGUE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
