"""Sources of an HDF5 file's bytes: local files here, addresses in fetching/remote_file.py."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pmmo.core.errors import PmmoError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 1 << 20  # the largest that is looked for
BUFFER = 1 << 20  # bytes; small enough to stay in the CPU cache between read and use


class BadFile(PmmoError):
    """The project cannot read this file; the message names it."""


class Source(Protocol):
    """A file with random access. A view from `stream` is valid until the next one."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def stream(self, offset: int, length: int) -> Iterator[memoryview]: ...


class LocalFile:
    """A regular local file, opened once, so that the checked bytes are the bytes that are read."""

    def __init__(
        self, path: Path, remedy: str = "Check the path and that you may read it."
    ) -> None:
        self.name = str(path)
        try:
            # O_NONBLOCK: opening a named pipe must not wait for a writer
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise PmmoError(f"{path}: cannot be opened ({error.strerror}). {remedy}") from None
        self._before = os.fstat(self._descriptor)
        self.size = self._before.st_size
        if not stat.S_ISREG(self._before.st_mode):
            self.close()
            raise PmmoError(f"{path}: is not a regular file. Give the path of an HDF5 file.")

    def __enter__(self) -> "LocalFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def fill(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on."""
        while view:  # one system call reads at most 2 GiB, and less after a signal
            count = os.preadv(self._descriptor, [view], offset)
            if count == 0:
                raise PmmoError(f"{self.name}: became shorter while it was read. Try again.")
            view, offset = view[count:], offset + count

    def stream(self, offset: int, length: int, step: int = BUFFER) -> Iterator[memoryview]:
        """The bytes from `offset` on, at most `step` at a time, in one reused buffer."""
        buffer = memoryview(bytearray(min(step, length)))
        end = offset + length
        while offset < end:
            view = buffer[: min(step, end - offset)]
            self.fill(view, offset)
            offset += len(view)
            yield view

    def check_unchanged(self) -> None:
        """Raise PmmoError if the file has changed since it was opened."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise PmmoError(f"{self.name}: was changed while it was read. Try again when it rests.")


def check_signature(source: Source) -> None:
    """Raise PmmoError if the first bytes are not those of an HDF5 file."""
    start = source.read(0, len(SIGNATURE))
    if start != SIGNATURE and not has_user_block(source):
        found = f"it starts with {start!r}" if start else "it is empty"
        raise BadFile(
            f"{source.name}: is not an HDF5 file ({found}, not with {SIGNATURE!r}). Give a file "
            "in the layout of the published multimodal_imdb.hdf5 (docs/data.md)."
        )


def has_user_block(source: Source) -> bool:
    """Whether other bytes come first, as in MATLAB's files: 512, or that doubled some times."""
    start = source.read(0, min(source.size, USER_BLOCK + len(SIGNATURE)))
    places = [512 << times for times in range(USER_BLOCK.bit_length() - 9)]
    return any(start.startswith(SIGNATURE, place) for place in places)


REMEDY = (
    "Give a file in the layout of the published multimodal_imdb.hdf5 (docs/data.md); "
    "`python -m pmmo import` makes one of a table (docs/own-data.md)."
)
