"""Download the columns of a remote file to `.work/fetch`, and resume after any interruption.

Each address has a folder with one `.part` file per column and a journal. The journal records the
version of the file, and the length and sha256 of each part. Only the recorded length of a part is
used, and only if hashing it again gives the recorded sha256. Therefore neither a kill nor a power
cut can leave wrong bytes in the result, and no fsync is needed on the way.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pmmo.core.progress import Progress
from pmmo.fetching.assembly import METADATA_SPACE, check_pins, check_space
from pmmo.fetching.http_session import Patience, Unusable
from pmmo.fetching.remote_file import Changed, HttpFile
from pmmo.hdf5.layout import Column, Layout
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile

CHECKPOINT = 1 << 20  # bytes; a kill loses at most this much
RESTARTS = 3  # if the file changes during the download


def folder_of(work: Path, url: str) -> Path:
    """The folder for the parts of an address; its name contains no secret of the address."""
    return work / hashlib.sha256(url.encode()).hexdigest()[:16]


def download(
    url: str,
    work: Path,
    target: Path,
    *,
    pins: Mapping[str, str],
    limit: float,
    allow_full_download: bool,
    patience: Patience | None = None,
) -> tuple[Layout, dict[str, Path], str]:
    """The layout of the file at `url`, its columns as files below `work`, and its printable name.

    Raises Unusable if the address does not provide a valid file; another address may.
    """
    folder = folder_of(work, url)
    for left in reversed(range(RESTARTS)):
        try:
            with HttpFile(url, allow_full_download=allow_full_download, patience=patience) as file:
                return _download(file, folder, target, pins, limit)
        except Changed as change:
            shutil.rmtree(folder, ignore_errors=True)
            if not left:
                raise Unusable(
                    f"{change} Tried {RESTARTS} times; run again when it rests."
                ) from None
    raise AssertionError("unreachable")


def _download(
    file: HttpFile, folder: Path, target: Path, pins: Mapping[str, str], limit: float
) -> tuple[Layout, dict[str, Path], str]:
    layout = check_layout(inspect(file), file.name, file.size, limit)
    columns = layout.columns.values()
    if (
        not file.version.validator
        and not file.version.etag
        and not set(layout.columns) <= set(pins)
    ):
        raise Unusable(
            f"{file.name}: the server sends neither ETag nor Last-Modified, so that a changed file "
            "would go unnoticed. Pin all four columns (data.sha256 in params.yaml), or download "
            "the file yourself and give its path as data.source."
        )
    journal = Journal(folder, file, layout)
    done = {column.name: journal.resume(column) for column in columns}
    missing = layout.nbytes - sum(count for count, _ in done.values())
    _check_space(folder, target, missing, layout)
    # small columns first, to detect a wrong file before the large column is downloaded; a server
    # without ranges sends the columns in file order
    order = sorted(columns, key=lambda item: item.nbytes if file.ranges else item.offset)
    with Progress(f"fetch {file.name}", missing) as progress:
        file.moved = progress.moved
        for column in order:
            digest = _finish(file, column, journal, *done[column.name])
            if column.name in pins:
                check_pins({column.name: digest}, {column.name: pins[column.name]}, file.name)
    return layout, {column.name: journal.part(column) for column in columns}, file.name


def _check_space(folder: Path, target: Path, missing: int, layout: Layout) -> None:
    """Check for room for the parts and for the file that is assembled from them."""
    whole = layout.nbytes + METADATA_SPACE
    if folder.stat().st_dev == target.parent.stat().st_dev:
        check_space(folder, missing + whole)
    else:
        check_space(folder, missing)
        check_space(target.parent, whole)


class Journal:
    """The parts of one address: the file that they belong to, and their verified lengths."""

    def __init__(self, folder: Path, file: HttpFile, layout: Layout) -> None:
        self.folder, self.path = folder, folder / "journal.json"
        self.identity = {
            "url": file.name,
            "version": asdict(file.version),
            "columns": [asdict(column) for column in layout.columns.values()],
        }
        # as read back from JSON, where tuples become lists
        self.identity = json.loads(json.dumps(self.identity))
        self.done: dict[str, list] = {}
        known = self._read()
        if known.get("identity") == self.identity and self._certain(file):
            self.done = known["done"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._write()

    @staticmethod
    def _certain(file: HttpFile) -> bool:
        """Whether the server's headers distinguish this file from others of the same size."""
        return bool(file.version.etag or file.version.modified)

    def part(self, column: Column) -> Path:
        return self.folder / f"{column.name}.part"

    def resume(self, column: Column) -> tuple[int, "hashlib._Hash"]:
        """The number of valid bytes of a column on disk, and their running hash."""
        count, expected = self.done.get(column.name, [0, ""])
        part, digest = self.part(column), hashlib.sha256()
        part.touch()
        if count and count <= part.stat().st_size:
            with LocalFile(part) as file:
                for view in file.stream(0, count):
                    digest.update(view)
        if digest.hexdigest() != expected:
            count, digest = 0, hashlib.sha256()
        os.truncate(part, count)
        return count, digest

    def note(self, column: Column, count: int, digest: "hashlib._Hash") -> None:
        self.done[column.name] = [count, digest.hexdigest()]
        self._write()

    def _read(self) -> dict:
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}

    def _write(self) -> None:
        growing = self.path.with_suffix(".tmp")
        growing.write_text(json.dumps({"identity": self.identity, "done": self.done}))
        growing.replace(self.path)


def _finish(
    file: HttpFile, column: Column, journal: Journal, count: int, digest: "hashlib._Hash"
) -> str:
    """Download the missing bytes of a column; return the sha256 of the whole column."""
    with journal.part(column).open("ab", buffering=0) as part:
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
