"""Move a remote file's columns to `.work/fetch`, and go on there after any interruption.

Each address has a folder with a `.part` per column and a journal: which version of which file
the parts belong to, and for each part how many bytes it had and their sha256. A part is trusted
only as far as its journal, and only after that prefix has been hashed again: so neither a kill nor
a power cut can smuggle in wrong bytes, and nothing has to be forced to the disk on the way.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO

from pmmo.core.progress import Progress
from pmmo.core.writing import write_bytes
from pmmo.fetching.addresses import Address, Unusable
from pmmo.fetching.assembly import METADATA_SPACE, check_pins, check_space
from pmmo.fetching.http_session import Patience
from pmmo.fetching.remote_file import Changed, HttpFile
from pmmo.hdf5.layout import Column, Layout
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile

CHECKPOINT = 1 << 20  # bytes; what a kill can cost
RESTARTS = 3  # where the file changes while it is fetched


def folder_of(work: Path, address: Address) -> Path:
    """Where the parts of an address are kept; its secrets stay out of the name, and may change."""
    return work / hashlib.sha256(address.written.encode()).hexdigest()[:16]


def forget(entry: Path) -> None:
    """Remove a folder or file of the work folder; of a link, the link alone."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def download(
    address: Address,
    work: Path,
    target: Path,
    *,
    pins: Mapping[str, str],
    limit: float,
    allow_full_download: bool,
    patience: Patience | None,
) -> tuple[Layout, dict[str, Path]]:
    """The layout of the file at `address`, and its columns as files below `work`.

    Unusable where the address does not give a good file; another may.
    """
    folder = folder_of(work, address)
    for _ in range(RESTARTS):
        try:
            with HttpFile(
                address, allow_full_download=allow_full_download, patience=patience
            ) as file:
                return _download(file, folder, target, pins, limit)
        except Changed as changed:
            forget(folder)
            change = changed
    raise Unusable(f"{change} Tried {RESTARTS} times; run again when it rests.")


def _download(
    file: HttpFile, folder: Path, target: Path, pins: Mapping[str, str], limit: float
) -> tuple[Layout, dict[str, Path]]:
    layout = check_layout(inspect(file), file.name, file.size, limit)
    columns = layout.columns.values()
    if not file.version.validator and not set(layout.columns) <= set(pins):
        raise Unusable(
            f"{file.name}: the server sends neither ETag nor Last-Modified (a weak ETag does not "
            "count), so that a changed file would go unnoticed. Pin all four columns (data.sha256 "
            "in params.yaml), or download the file yourself and give its path as data.source."
        )
    journal = Journal(folder, file, layout)
    done = {column.name: journal.resume(column) for column in columns}
    missing = layout.nbytes - sum(count for count, _ in done.values())
    _check_space(folder, target, missing, layout)
    # the small columns first: a wrong file shows before the large one has moved; a server without
    # ranges sends them in their own order
    order = sorted(columns, key=lambda item: item.nbytes if file.ranges else item.offset)
    with Progress(f"fetch {file.name}", missing) as progress:
        file.moved = progress.moved
        for column in order:
            digest = _finish(file, column, journal, *done[column.name])
            check_pins({column.name: digest}, pins, file.name)
    return layout, {column.name: journal.part(column) for column in columns}


def _check_space(folder: Path, target: Path, missing: int, layout: Layout) -> None:
    """Room for the parts and, besides them, for the file that is put together from them."""
    whole = layout.nbytes + METADATA_SPACE
    if folder.stat().st_dev == target.parent.stat().st_dev:
        check_space(folder, missing + whole)
    else:
        check_space(folder, missing)
        check_space(target.parent, whole)


class Journal:
    """The parts of one address: which file they belong to and how far they can be trusted."""

    def __init__(self, folder: Path, file: HttpFile, layout: Layout) -> None:
        self.folder, self.path = folder, folder / "journal.json"
        self.identity = {
            "url": file.name,
            "version": asdict(file.version),
            "columns": [asdict(column) for column in layout.columns.values()],
        }
        # as JSON gives it back: tuples become lists
        self.identity = json.loads(json.dumps(self.identity))
        self.done: dict[str, list] = {}
        known = self._read()
        if known.get("identity") == self.identity and file.version.validator:
            self.done = known["done"]
        else:  # another file, or the server cannot tell
            forget(folder)
            folder.mkdir(parents=True)
        self._write()

    def part(self, column: Column) -> Path:
        return self.folder / f"{column.name}.part"

    def resume(self, column: Column) -> tuple[int, "hashlib._Hash"]:
        """How many bytes of a column are there and good, and their hash so far."""
        count, expected = self.done.get(column.name, [0, ""])
        digest = hashlib.sha256()
        with self.growing(column) as part:
            if count and count <= os.fstat(part.fileno()).st_size:
                with LocalFile(self.part(column)) as file:
                    for view in file.stream(0, count):
                        digest.update(view)
            if digest.hexdigest() != expected:
                count, digest = 0, hashlib.sha256()
            part.truncate(count)
        return count, digest

    def growing(self, column: Column) -> IO[bytes]:
        """The part to append to; OSError where a link stands in its place."""

        def never_through_a_link(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NOFOLLOW, 0o666)

        return open(self.part(column), "ab", buffering=0, opener=never_through_a_link)

    def note(self, column: Column, count: int, digest: "hashlib._Hash") -> None:
        self.done[column.name] = [count, digest.hexdigest()]
        self._write()

    def _read(self) -> dict:
        if self.folder.is_symlink():
            return {}
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _write(self) -> None:
        text = json.dumps({"identity": self.identity, "done": self.done})
        write_bytes(self.path, text.encode(), durable=False)


def _finish(
    file: HttpFile, column: Column, journal: Journal, count: int, digest: "hashlib._Hash"
) -> str:
    """Fetch what a column lacks; its sha256."""
    with journal.growing(column) as part:
        noted = count
        for view in file.stream(column.offset + count, column.nbytes - count):
            digest.update(view)
            count += len(view)
            while view:
                view = view[part.write(view) :]
            if count - noted >= CHECKPOINT or count == column.nbytes:
                journal.note(column, count, digest)
                noted = count
    return digest.hexdigest()
