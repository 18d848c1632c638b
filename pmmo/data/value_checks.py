"""Checks of the values in the four columns: ids, labels, finite numbers."""

from collections.abc import Sequence

import numpy as np

from pmmo.hdf5.layout_checks import Refusal


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


def all_finite(chunk: np.ndarray) -> bool:
    """Whether a C-ordered float32 array holds neither NaN nor infinity.

    NaN and infinity survive every sum of squares, so one fast pass settles the normal case; the
    sum of finite values can overflow too, so only the slow pass may say no.
    """
    flat = chunk.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())


def check_finite(chunk: np.ndarray, first: int, column: str, name: str, ids: Sequence[str]) -> None:
    """Refusal where rows `first`… of `column`, `chunk` (n, width) float32, hold NaN or infinity."""
    if not all_finite(chunk):
        row, width = np.argwhere(~np.isfinite(chunk))[0].tolist()
        raise Refusal(
            name,
            f"dataset {column!r}, row {first + row} (id {ids[first + row]!r}), column {width}: "
            f"{chunk[row, width]}, expected a finite number.",
            "Mend or leave out that movie.",
        )


def nan_rows(chunk: np.ndarray) -> np.ndarray:
    """Rows of `chunk` (n, T) that are NaN throughout: movies without a text vector."""
    return np.flatnonzero(np.isnan(chunk).all(axis=1))
