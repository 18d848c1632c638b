"""The stage `extract`: a movie file in the published layout -> data/tensors.

Each column is checked a piece at a time while it is read, then written as one safetensors file.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from pmmo.core.errors import PmmoError
from pmmo.core.names import CATALOGUE, Provenance
from pmmo.core.writing import growing_folder
from pmmo.data.value_checks import (
    all_usable,
    check_ids,
    check_labels,
    check_splits,
    check_usable,
    nan_rows,
)
from pmmo.hdf5.layout import Column, Layout
from pmmo.hdf5.layout_checks import Refusal, check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import BUFFER, LocalFile

NAN_TEXT = ("zeros", "error")
GB = 1e9

Check = Callable[[int, np.ndarray], list[int]]  # of rows (n, ...) from row `first` on


def extract(movies: Path, folder: Path, *, nan_text: str, memory_limit_gb: float) -> None:
    """Check the file `movies` and write its columns to `folder` as tensors and a catalogue.

    `nan_text` says what becomes of movies whose text vector is NaN throughout: `zeros` or
    `error`. `memory_limit_gb` bounds the four columns together. PmmoError names what is wrong;
    then `folder` is as before.
    """
    if nan_text not in NAN_TEXT:
        raise PmmoError(
            f"data.nan_text is {nan_text!r}; expected one of {', '.join(NAN_TEXT)} (params.yaml)."
        )
    with LocalFile(movies, "Run `dvc repro fetch`.") as source:
        facts = inspect(source)
        layout = check_layout(facts, source.name, source.size, memory_limit_gb * GB)
        try:
            with growing_folder(folder, durable=False) as fresh:  # made again in a moment
                _write(source, layout, fresh, nan_text)
                source.check_unchanged()
        except SafetensorError as error:
            raise PmmoError(
                f"{folder}: cannot be written ({error}). Free some space, or make the folder "
                "writable, and run again."
            ) from None


def _write(source: LocalFile, layout: Layout, folder: Path, nan_text: str) -> None:
    ids = _ids(source, layout)

    def text(first: int, rows: np.ndarray) -> list[int]:
        return _check_text(rows, first, source.name, ids, nan_text)

    def image(first: int, rows: np.ndarray) -> list[int]:
        check_usable(rows, first, "vgg_features", source.name, ids)
        return []

    def genres(first: int, rows: np.ndarray) -> list[int]:
        check_labels(rows, first, source.name, ids)
        return (first + np.flatnonzero(~rows.any(axis=1))).tolist()

    columns = layout.columns
    without_text = _write_tensor(folder, "text", source, columns["features"], "f4", text)
    _write_tensor(folder, "image", source, columns["vgg_features"], "f4", image)
    unlabelled = _write_tensor(folder, "genres", source, columns["genres"], "u1", genres)
    check_splits(unlabelled, layout.splits, source.name)
    write_catalogue(
        folder,
        {
            "ids": ids,
            "genres": list(layout.genre_names),
            "splits": {name: list(bounds) for name, bounds in layout.splits.items()},
            "provenance": layout.provenance or _unknown(source, layout),
            "nan_text": {
                "policy": nan_text,
                "count": len(without_text),
                "ids": [ids[row] for row in without_text],
            },
            "unlabelled": len(unlabelled),
        },
    )


def _write_tensor(
    folder: Path, key: str, source: LocalFile, column: Column, dtype: str, check: Check
) -> list[int]:
    """Write a column as the tensor `key`; returns the numbers of the rows that `check` notes.

    `check` may change the rows, and refuses them with a `Refusal`.
    """
    values = np.empty(column.shape, dtype)
    noted = []
    for first, rows in chunks(source, column):
        noted += check(first, rows)
        values[first : first + len(rows)] = rows
    save_file({key: values}, folder / f"{key}.safetensors")
    return noted


def _unknown(source: LocalFile, layout: Layout) -> Provenance:
    return {
        "kind": "file",
        "source": source.name,
        "rows": layout.rows,
        "sha256": {},
        "pinned": False,
        "note": "The file does not say where it comes from.",
    }


def chunks(source: LocalFile, column: Column) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows (n, ...)) of a column, about a megabyte at a time, in a reused buffer."""
    step = max(1, BUFFER // column.row_bytes) * column.row_bytes
    first = 0
    for view in source.stream(column.offset, column.nbytes, step):
        rows = np.frombuffer(view, column.dtype).reshape(-1, *column.shape[1:])
        yield first, rows
        first += len(rows)


def _ids(source: LocalFile, layout: Layout) -> list[str]:
    column = layout.columns["imdb_ids"]
    parts = [rows.copy() for _, rows in chunks(source, column)]
    return check_ids(np.concatenate(parts), source.name)


def _check_text(
    rows: np.ndarray, first: int, name: str, ids: list[str], nan_text: str
) -> list[int]:
    """Numbers of the movies without a text vector, NaN throughout, which becomes zeros."""
    if all_usable(rows):
        return []
    empty = nan_rows(rows)
    if len(empty) and nan_text == "error":
        check_usable(rows[: empty[0]], first, "features", name, ids)
        row = first + int(empty[0])
        raise Refusal(
            name,
            f"dataset 'features', row {row} (id {ids[row]!r}): the text vector is NaN.",
            "data.nan_text: zeros (params.yaml) lets such movies through as zeros.",
        )
    rows[empty] = 0  # departure D34
    check_usable(rows, first, "features", name, ids)
    return (first + empty).tolist()


def write_catalogue(folder: Path, catalogue: Mapping[str, object]) -> None:
    """Write movies.json: what the rows of the tensors mean and where they come from."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in catalogue.items()]
    (folder / CATALOGUE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
