"""Ids, text and image of a movie file, a batch at a time: what a prediction reads.

The file may be of any size. In memory are one batch, and the ids as the file stores them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pmmo.data.extract import chunks
from pmmo.data.value_checks import all_usable, check_id, check_usable, id_twice, nan_rows
from pmmo.hdf5.encoders import Identity
from pmmo.hdf5.layout import Column
from pmmo.hdf5.layout_checks import Refusal, check_features, check_layout, encoders_of
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile

ANY_SIZE = float("inf")


class FeatureBatch(NamedTuple):
    """Some movies, in the file's order. The arrays are overwritten by the next batch."""

    ids: list[str]
    text: np.ndarray  # (B, T) float32
    image: np.ndarray  # (B, I) float32
    without_text: int  # movies whose text vector was NaN throughout, now zeros


@dataclass(frozen=True)
class Features:
    """The movies `rows` of an open, checked file."""

    source: LocalFile
    columns: Mapping[str, Column]
    ids: np.ndarray  # byte strings of all rows of the file, as stored
    rows: range
    nan_text: str  # zeros or error
    encoders: Mapping[str, Identity] = field(default_factory=dict)  # of text and image, if known

    @property
    def row_bytes(self) -> int:
        return self.columns["features"].row_bytes + self.columns["vgg_features"].row_bytes

    def batches(self, size: int) -> Iterator[FeatureBatch]:
        """Batches of `size` movies, the last one smaller; Refusal where a value is not finite."""
        first = self.rows.start
        columns = self._values("features", size), self._values("vgg_features", size)
        for text, image in zip(*columns, strict=True):
            without = self._fill_text(text, first)
            self._check(image, first, "vgg_features")
            ids = [item.decode() for item in self.ids[first : first + len(text)].tolist()]
            yield FeatureBatch(ids, text, image, without)
            first += len(text)

    def _values(self, name: str, size: int) -> Iterator[np.ndarray]:
        column = self.columns[name]
        start = column.offset + self.rows.start * column.row_bytes
        length = len(self.rows) * column.row_bytes
        for view in self.source.stream(start, length, size * column.row_bytes):
            yield np.frombuffer(view, column.dtype).reshape(-1, column.shape[1])

    def _fill_text(self, text: np.ndarray, first: int) -> int:
        """Zeros for movies without text, as training had them; their number."""
        if all_usable(text):
            return 0
        empty = nan_rows(text)
        if len(empty) and self.nan_text == "error":
            row = first + int(empty[0])
            raise Refusal(
                self.source.name,
                f"dataset 'features', row {row} (id {self.ids[row].decode()!r}): the text vector "
                "is NaN.",
                "The model was trained with data.nan_text: error. Leave out that movie.",
            )
        text[empty] = 0
        self._check(text, first, "features")
        return len(empty)

    def _check(self, values: np.ndarray, first: int, name: str) -> None:
        if not all_usable(values):
            ids = [item.decode() for item in self.ids.tolist()]
            check_usable(values, first, name, self.source.name, ids)


@contextmanager
def open_features(
    path: Path, *, split: str | None = None, nan_text: str = "zeros"
) -> Iterator[Features]:
    """Open a movie file, check where its columns lie, and its ids; the values as they are read.

    With `split` (train, dev or test) the file must have the whole layout, labels included; without
    it, ids, text and image are enough, and all movies are read. PmmoError says what is wrong.
    """
    with LocalFile(path) as source:
        facts = inspect(source)
        if split is None:
            columns: Mapping[str, Column] = check_features(facts, source.name, source.size)
            rows = range(columns["imdb_ids"].shape[0])
        else:
            layout = check_layout(facts, source.name, source.size, ANY_SIZE)
            columns, rows = layout.columns, range(*layout.splits[split])
        ids = read_ids(source, columns["imdb_ids"])
        yield Features(source, columns, ids, rows, nan_text, encoders_of(facts, source.name))
        source.check_unchanged()


def read_ids(source: LocalFile, column: Column) -> np.ndarray:
    """All ids as stored; Refusal for one that is empty, not printable ASCII, or there twice."""
    ids = np.empty(column.shape, column.dtype)
    for first, part in chunks(source, column):
        ids[first : first + len(part)] = part
        for row, value in enumerate(part.tolist(), first):
            check_id(value, row, source.name)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(twice):
        place = twice[np.argmin(order[twice + 1])]  # the first row that repeats an id
        earlier, row = int(order[place]), int(order[place + 1])
        raise id_twice(ids[row].decode(), row, earlier, source.name)
    return ids
