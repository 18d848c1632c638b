"""Columns of a movie file -> tensor files: read, checked and written in pieces, two at a time.

While one thread waits for the file that is written, the other reads and checks. Nobody can tell
from the result: a piece has its own place in both files, and what is found in the pieces comes
back in the order of the rows. What is checked is the memory that is then written; nothing is read
twice.
"""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import zip_longest
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pmmo.layout import Column
from pmmo.sources import LocalFile
from pmmo.tensors import TYPES, header

THREADS = 2  # more are no faster: writes to one file wait for each other
PIECE = 4 << 20  # bytes; with smaller pieces the threads wait for each other more often

Check = Callable[[int, np.ndarray], list[int]]


class TensorFile(NamedTuple):
    """A tensor file to make: its `key` and `kind` (F32 or U8), and the column it comes from.

    `check(first, rows)` is given the rows `first`… of the column, (n, ...), before they are
    written. It may change them, and returns the numbers of rows to remember. It runs in several
    threads.
    """

    key: str
    kind: str
    column: Column
    check: Check


def write_tensors(folder: Path, source: LocalFile, *tensors: TensorFile) -> list[list[int]]:
    """Write the tensor files; returns the rows to remember of each, in order.

    Where a check raises, the first such piece of the first such tensor decides.
    """
    with ExitStack() as stack:
        pieces = []
        for tensor in tensors:
            path = folder / f"{tensor.key}.safetensors"
            file = stack.enter_context(path.open("wb", buffering=0))
            pieces.append(_pieces(file.fileno(), source, tensor))
        pool = ThreadPoolExecutor(THREADS)
        stack.callback(pool.shutdown, cancel_futures=True)
        noted: list[list[Future]] = [[] for _ in tensors]
        # in turns: a write waits for another to the same file, but not for one to another file
        for turn in zip_longest(*pieces):
            for found, piece in zip(noted, turn, strict=True):
                if piece is not None:
                    found.append(pool.submit(piece))
        return [[row for piece in found for row in piece.result()] for found in noted]


def _pieces(file: int, source: LocalFile, tensor: TensorFile) -> Iterator[Callable[[], list[int]]]:
    """Begin the tensor file; then what is left to be done, in parts in any order."""
    column, dtype = tensor.column, TYPES[tensor.kind]
    count, *width = column.shape
    head = header(tensor.key, tensor.kind, column.shape)
    reserve(file, len(head) + count * prod(width) * dtype.itemsize)
    write(file, head, 0)

    def pass_on(first: int, rows: int) -> list[int]:
        values = np.empty((rows, *width), column.dtype)
        source.fill(memoryview(values).cast("B"), column.offset + first * column.row_bytes)
        noted = tensor.check(first, values)
        place = len(head) + first * prod(width) * dtype.itemsize
        write(file, values.astype(dtype, copy=False), place)
        return noted

    step = max(1, PIECE // column.row_bytes)
    for first in range(0, count, step):
        yield partial(pass_on, first, min(step, count - first))


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
