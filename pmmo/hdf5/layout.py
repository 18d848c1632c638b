"""The layout of the published `multimodal_imdb.hdf5`: column names and types.

Arevalo et al. wrote the file with Fuel's H5PYDataset: one row per movie, contiguous columns, and
a `split` attribute with one record per (split, source). Widths, genre count and genre names are
read from the file; nothing here assumes 300, 4,096 or 23.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

# column -> its name in this project; the four columns that the paper extracts (section 2.2)
COLUMNS = {"imdb_ids": "ids", "genres": "genres", "features": "text", "vgg_features": "image"}


@dataclass(frozen=True)
class Column:
    """The place of a column in its file: `shape` (N, ...) of `dtype`, from byte `offset` on."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """A checked file in the published layout: the places of its columns, genre names and splits."""

    columns: Mapping[str, Column]
    genre_names: tuple[str, ...]
    splits: Mapping[str, tuple[int, int]]
    provenance: Mapping[str, object] | None = None

    @property
    def rows(self) -> int:
        return self.columns["imdb_ids"].shape[0]

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())
