"""Put four columns together into one small file in the published layout."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pmmo.core.errors import PmmoError
from pmmo.core.names import Provenance
from pmmo.hdf5.layout import COLUMNS, Column, Layout
from pmmo.hdf5.writer import allocate_movies, write_provenance

PINNED = "The columns have the pinned sha256."
UNPINNED = "Unpinned: the sha256 of the columns are recorded, not compared with known ones."
SYNTHETIC = "Synthetic stand-in: these are not real movies."
METADATA_SPACE = 1 << 20  # upper bound of the bytes besides the columns


class WrongHash(PmmoError):
    """A column does not have its pinned sha256."""


def temporary(target: Path) -> Path:
    """The temporary name of `target`; a fixed one, so that a run overwrites what a kill left."""
    return target.with_name(target.name + ".tmp")


def check_space(folder: Path, needed: int) -> None:
    """Raise PmmoError if the file system of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PmmoError(
            f"{folder}: {needed:,} bytes are needed there and {free:,} are free. Free some space "
            "and run again; what was fetched so far is kept."
        )


def assemble(
    target: Path,
    layout: Layout,
    read: Callable[[Column], Iterable[memoryview]],
    *,
    kind: str,
    source: str,
    name: str,
    pins: Mapping[str, str],
    settled: Callable[[], None] = lambda: None,
) -> Provenance:
    """Write the columns of `layout`, with the bytes from `read`, to a temporary file; rename it.

    Returns the provenance of `target`: `kind`, `source` and the hashes. It does not change from
    run to run. `pins` maps columns to the sha256 that they must have; otherwise WrongHash names
    the file `name`. `settled` must raise if the source has changed in the meantime.
    """
    growing = temporary(target)
    check_space(growing.parent, layout.nbytes + METADATA_SPACE)
    shapes = {column.name: (column.shape, column.dtype) for column in layout.columns.values()}
    try:
        places = allocate_movies(growing, shapes, layout.genre_names, layout.splits)
        hashes = {}
        with growing.open("r+b", buffering=0) as file:
            for column in layout.columns.values():
                file.seek(places[column.name].offset)
                hashes[column.name] = _pour(read(column), file)
        settled()
        check_pins(hashes, pins, name)
        provenance = _provenance(layout, kind, source, hashes, pins)
        write_provenance(growing, provenance)
        with growing.open("rb") as file:
            os.fsync(file.fileno())
        growing.replace(target)
    finally:
        growing.unlink(missing_ok=True)
    return provenance


def _pour(views: Iterable[memoryview], file) -> str:
    """Write all views to an unbuffered file; return their sha256."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
        while view:
            view = view[file.write(view) :]
    return digest.hexdigest()


def check_pins(hashes: Mapping[str, str], pins: Mapping[str, str], name: str) -> None:
    for column, pinned in pins.items():
        if hashes[column] != pinned:
            raise WrongHash(
                f"{name}: dataset {column!r} has sha256 {hashes[column]}, pinned is {pinned}: this "
                "is another file, or it was damaged on the way. Take the right file, or, if this "
                "is the one you want, change data.sha256 in params.yaml."
            )


def _provenance(
    layout: Layout, kind: str, source: str, hashes: Mapping[str, str], pins: Mapping[str, str]
) -> Provenance:
    if (layout.provenance or {}).get("kind") == "synthetic":
        kind = "synthetic"  # a copy of synthetic movies stays synthetic
    pinned = set(pins) == set(COLUMNS)
    notes = [SYNTHETIC] * (kind == "synthetic") + [PINNED if pinned else UNPINNED]
    return {
        "kind": kind,
        "source": source,
        "rows": layout.rows,
        "sha256": dict(hashes),
        "pinned": pinned,
        "note": " ".join(notes),
    }
