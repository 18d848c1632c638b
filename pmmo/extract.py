"""The stage `extract`: a movie file in the published layout -> data/tensors.

Columns pass through in pieces of a few megabytes: checked while they are in the processor's cache,
written, forgotten (columns.py). The checks are here and in checks.py.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pmmo.checks import (
    Refusal,
    all_finite,
    check_finite,
    check_ids,
    check_labels,
    check_layout,
    nan_rows,
)
from pmmo.columns import TensorFile, write_tensors
from pmmo.errors import PmmoError
from pmmo.layout import Column, Layout
from pmmo.sandbox import inspect
from pmmo.sources import BUFFER, LocalFile
from pmmo.tensors import write_catalogue

NAN_TEXT = ("zeros", "error")
GB = 1e9


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
    fresh = folder.with_name(folder.name + ".tmp")
    try:
        with LocalFile(movies, "Run `dvc repro fetch`.") as source:
            facts = inspect(source)
            layout = check_layout(facts, source.name, source.size, memory_limit_gb * GB)
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            _write(source, layout, fresh, nan_text)
            source.check_unchanged()
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError as error:
        raise PmmoError(
            f"{folder}: cannot be written ({error.strerror}). Free some space, or make the "
            "folder writable, and run again."
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(source: LocalFile, layout: Layout, folder: Path, nan_text: str) -> None:
    ids = _ids(source, layout)

    def text(first: int, rows: np.ndarray) -> list[int]:
        return _check_text(rows, first, source.name, ids, nan_text)

    def image(first: int, rows: np.ndarray) -> list[int]:
        check_finite(rows, first, "vgg_features", source.name, ids)
        return []

    def genres(first: int, rows: np.ndarray) -> list[int]:
        check_labels(rows, first, source.name, ids)
        return (first + np.flatnonzero(~rows.any(axis=1))).tolist()

    without_text, _, unlabelled = write_tensors(
        folder,
        source,
        TensorFile("text", "F32", layout.columns["features"], text),
        TensorFile("image", "F32", layout.columns["vgg_features"], image),
        TensorFile("genres", "U8", layout.columns["genres"], genres),
    )
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


def _unknown(source: LocalFile, layout: Layout) -> Mapping[str, object]:
    return {
        "kind": "file",
        "source": source.name,
        "rows": layout.rows,
        "sha256": {},
        "pinned": False,
        "note": "The file does not say where it comes from.",
    }


def chunks(source: LocalFile, column: Column) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows (n, ...)) of a column, about a megabyte at a time, in one buffer."""
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
    if all_finite(rows):
        return []
    empty = nan_rows(rows)
    if len(empty) and nan_text == "error":
        check_finite(rows[: empty[0]], first, "features", name, ids)
        row = first + int(empty[0])
        raise Refusal(
            name,
            f"dataset 'features', row {row} (id {ids[row]!r}): the text vector is NaN.",
            "data.nan_text: zeros (params.yaml) lets such movies through as zeros.",
        )
    rows[empty] = 0  # departure D34
    check_finite(rows, first, "features", name, ids)
    return (first + empty).tolist()
