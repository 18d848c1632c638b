"""A column of a movie file -> a tensor file: read, checked and written in pieces, two at a time.

While one thread waits for the file that is written, the other reads and checks. Nobody can tell
from the result: a piece has its own place in both files, and what is found in the pieces comes
back in the order of the rows. What is checked is the memory that is then written; nothing is read
twice.
"""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np

from pmmo.layout import Column
from pmmo.sources import LocalFile
from pmmo.tensors import TYPES, header

THREADS = 2  # more are no faster: writes to one file wait for each other
PIECE = 4 << 20  # bytes; with smaller pieces the threads wait for each other more often

Check = Callable[[int, np.ndarray], list[int]]


def write_tensor(
    folder: Path, key: str, kind: str, source: LocalFile, column: Column, check: Check
) -> list[int]:
    """Write `column` as the tensor `key` of type `kind` (F32 or U8); returns rows of note.

    `check(first, rows)` is given the rows `first`… of the column, (n, ...), before they are
    written. It may change them, and returns the numbers of rows to remember; all of these come
    back, in order. Where it raises, the first such piece decides. It runs in several threads.
    """
    head = header(key, kind, column.shape)
    count, *width = column.shape
    row_bytes = prod(width) * TYPES[kind].itemsize
    step = max(1, PIECE // column.row_bytes)

    def pass_on(first: int) -> list[int]:
        rows = np.empty((min(step, count - first), *width), column.dtype)
        source.fill(memoryview(rows).cast("B"), column.offset + first * column.row_bytes)
        noted = check(first, rows)
        write(file.fileno(), rows.astype(TYPES[kind], copy=False), len(head) + first * row_bytes)
        return noted

    with (folder / f"{key}.safetensors").open("wb", buffering=0) as file:
        reserve(file.fileno(), len(head) + count * row_bytes)
        write(file.fileno(), head, 0)
        with ThreadPoolExecutor(THREADS) as pool:
            pieces = pool.map(pass_on, range(0, count, step))
            return [row for noted in pieces for row in noted]


def reserve(descriptor: int, length: int) -> None:
    """Find the room for a file at once: faster than with each write, and known to be enough.

    Where a system or file system cannot do so, the writes find it.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def write(descriptor: int, values: bytes | np.ndarray, place: int) -> None:
    """Write all of `values` from byte `place` on."""
    view = memoryview(values).cast("B")
    while view:  # one system call writes at most 2 GiB, or less on a signal
        done = os.pwrite(descriptor, view, place)
        view, place = view[done:], place + done
