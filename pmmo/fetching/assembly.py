"""Put four columns together into one small file in the published layout."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pmmo.core.errors import PmmoError
from pmmo.core.writing import growing
from pmmo.hdf5.encoders import Embedded, read_encoders, record
from pmmo.hdf5.layout import COLUMNS, Column, Layout
from pmmo.hdf5.writer import allocate_movies, write_provenance

PINNED = "The columns have the pinned sha256."
UNPINNED = "Unpinned: the sha256 of the columns are recorded, not compared with known ones."
SYNTHETIC = "Synthetic stand-in: these are not real movies."
METADATA_SPACE = 1 << 20  # bytes of the assembled file besides its columns, at most


class WrongHash(PmmoError):
    """A column that is not the pinned one."""


def check_space(folder: Path, needed: int) -> None:
    """PmmoError where the file system of `folder` has fewer than `needed` bytes free."""
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
) -> Embedded:
    """Write `target`, whole or not at all, from the columns of `layout`, whose bytes `read` gives.

    `kind`, `source` and the hashes become its provenance, which is returned: nothing that changes
    from run to run.
    `pins` maps columns to the sha256 they must have (WrongHash otherwise, naming the file
    `name`); `settled` raises where the source changed meanwhile.
    """
    check_space(target.parent, layout.nbytes + METADATA_SPACE)
    shapes = {column.name: (column.shape, column.dtype) for column in layout.columns.values()}
    with growing(target) as new:
        places = allocate_movies(new, shapes, layout.genre_names, layout.splits)
        hashes = {}
        with new.open("r+b", buffering=0) as file:
            for column in layout.columns.values():
                file.seek(places[column.name].offset)
                hashes[column.name] = _pour(read(column), file)
        settled()
        check_pins(hashes, pins, name)
        provenance = _provenance(layout, kind, source, hashes, pins)
        write_provenance(new, provenance)
    return provenance


def _pour(views: Iterable[memoryview], file) -> str:
    """Write all views to an unbuffered file; their sha256."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
        while view:
            view = view[file.write(view) :]
    return digest.hexdigest()


def check_pins(hashes: Mapping[str, str], pins: Mapping[str, str], name: str) -> None:
    for column, found in hashes.items():
        pinned = pins.get(column, found)
        if found != pinned:
            raise WrongHash(
                f"{name}: dataset {column!r} has sha256 {found}, pinned is {pinned}: this "
                "is another file, or it was damaged on the way. Take the right file, or, if this "
                "is the one you want, change data.sha256 in params.yaml."
            )


def _provenance(
    layout: Layout, kind: str, source: str, hashes: Mapping[str, str], pins: Mapping[str, str]
) -> Embedded:
    if (layout.provenance or {}).get("kind") == "synthetic":
        kind = "synthetic"  # a copy of synthetic movies does not turn into real ones
    pinned = set(pins) == set(COLUMNS)
    notes = [SYNTHETIC] * (kind == "synthetic") + [PINNED if pinned else UNPINNED]
    origin: Embedded = {
        "kind": kind,
        "source": source,
        "rows": layout.rows,
        "sha256": dict(hashes),
        "pinned": pinned,
        "note": " ".join(notes),
    }
    if encoders := read_encoders(layout.provenance):
        origin["encoders"] = record(encoders)
    return origin
