"""Checks of the values in the four columns: ids, labels, numbers that can be squared."""

from collections.abc import Mapping, Sequence

import numpy as np

from pmmo.hdf5.layout_checks import Refusal

# Batch norm squares its inputs. Beyond this (NaN too) a variance is infinite in 32-bit floats: one
# fill value, such as NetCDF's 9.97e36, would flatten its column for every movie.
LARGEST = np.float32(1.8446743e19)


def check_ids(values: np.ndarray, name: str) -> list[str]:
    """The ids (N,) as text; Refusal for one that is empty, not printable ASCII, or there twice."""
    found = values.tolist()
    if b"".join(found).isalnum() and all(found) and len(set(found)) == len(found):
        return [value.decode("ascii") for value in found]  # as IMDb's are: no need to look at each
    rows: dict[str, int] = {}
    for row, value in enumerate(found):
        text = check_id(value, row, name)
        if text in rows:
            raise id_twice(text, row, rows[text], name)
        rows[text] = row
    return list(rows)


def check_id(value: bytes, row: int, name: str) -> str:
    """The id of a row as text; Refusal for one that is empty or not printable ASCII."""
    text = value.decode("ascii", "replace")
    if text and text.isascii() and text.isprintable() and text == text.strip():
        return text
    where = f"dataset 'imdb_ids', row {row}"
    if not value:
        raise Refusal(name, f"{where}: the id is empty.", "Give each movie an id.")
    raise Refusal(name, f"{where}: the id {value!r} is not printable ASCII text.")


def id_twice(text: str, row: int, earlier: int, name: str) -> Refusal:
    return Refusal(
        name,
        f"dataset 'imdb_ids', row {row}: the id {text!r} is that of row {earlier} too.",
        "Keep one.",
    )


def check_labels(chunk: np.ndarray, first: int, name: str, ids: Sequence[str]) -> None:
    """Refusal where rows `first`… of the labels, `chunk` (n, G) int32, are not 0 or 1."""
    if chunk.view(np.uint32).max() > 1:
        row, column = np.argwhere(chunk.view(np.uint32) > 1)[0].tolist()
        raise Refusal(
            name,
            f"dataset 'genres', row {first + row} (id {ids[first + row]!r}), column {column}: "
            f"{chunk[row, column]}, expected 0 or 1.",
        )


def usable(chunk: np.ndarray) -> np.ndarray:
    """Which numbers of a float32 array can be squared."""
    return np.abs(chunk) <= LARGEST


def all_usable(chunk: np.ndarray) -> bool:
    """Whether all numbers of a C-ordered float32 array can be squared.

    NaN, infinity and a square that overflows survive every sum of squares, so one fast pass settles
    the normal case; the sum of finite squares can overflow too, so only the slow pass may say no.
    """
    flat = chunk.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)) or usable(flat).all())


def check_usable(chunk: np.ndarray, first: int, column: str, name: str, ids: Sequence[str]) -> None:
    """Refusal where rows `first`… of `column`, `chunk` (n, width) float32, cannot be squared."""
    if not all_usable(chunk):
        row, width = np.argwhere(~usable(chunk))[0].tolist()
        raise Refusal(
            name,
            f"dataset {column!r}, row {first + row} (id {ids[first + row]!r}), column {width}: "
            f"{chunk[row, width]:g}, expected a finite number of at most {LARGEST:.2g}: larger "
            "ones cannot be squared.",
            "Mend or leave out that movie.",
        )


def check_splits(
    unlabelled: Sequence[int], splits: Mapping[str, tuple[int, int]], name: str
) -> None:
    """Refusal where a split has no label at all; `unlabelled` are the rows without one."""
    rows = np.asarray(unlabelled)
    for split, (start, stop) in splits.items():
        if np.count_nonzero((rows >= start) & (rows < stop)) == stop - start:
            raise Refusal(
                name,
                f"no movie of split {split!r} has a genre, so nothing can be scored there.",
                "Give labels, or leave these movies out and predict them (docs/own-data.md).",
            )


def nan_rows(chunk: np.ndarray) -> np.ndarray:
    """Rows of `chunk` (n, T) that are NaN throughout: movies without a text vector."""
    return np.flatnonzero(np.isnan(chunk).all(axis=1))
