"""Parquet files, read by a process of their own: nobody knows before what they unpack to.

A page of 1,500 bytes may unpack to gigabytes, and Arrow is a large C++ library. So a child reads
the file, with as much memory as its footer gives reason for, and sends the rows through a pipe.
"""

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet

from pmmo.hdf5.inspection import close_all_but

FORK = multiprocessing.get_context("fork")
MEMORY = 512 << 20  # bytes beyond what the child has at its start and what its columns need
COLUMN = 4 << 20  # of one column at most: a page, packed and unpacked, and its dictionary
BUFFER = 1 << 20  # bytes read of a column at once
ROWS, BATCH = 1024, 64 << 20  # rows and bytes in memory at once
SECONDS = 20  # until a child that has closed its pipe must have ended


class Unreadable(ValueError):
    """What is wrong with a file, in the child's words."""


def columns_of(path: Path) -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns, in order; Unreadable where the file is none."""
    with rows_from(path, None) as stream:
        return [(field.name, field.type) for field in stream.schema]


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows in order, a piece at a time, with these columns alone; Unreadable as above."""
    with rows_from(path, list(columns)) as stream:
        yield from stream


@contextmanager
def rows_from(path: Path, columns: list[str] | None) -> Iterator[pa.RecordBatchReader]:
    """A child's stream of rows, or of the bare schema where no columns are asked for."""
    with path.open("rb") as file:
        (rows, child_rows), (words, child_words) = os.pipe(), os.pipe()
        child = FORK.Process(target=serve, args=(file.fileno(), child_rows, child_words, columns))
        child.start()
    os.close(child_rows)
    os.close(child_words)
    try:
        with open(rows, "rb") as sent, open(words, "rb") as told:  # noqa: PTH123
            try:
                yield pa.ipc.open_stream(sent)
            except (pa.ArrowException, OSError):
                check_end(child, told)
                raise
            check_end(child, told)
    finally:
        child.kill()
        child.join()
        child.close()


def check_end(child: BaseProcess, told: BinaryIO) -> None:
    """Unreadable unless the child came to its end: a stream that breaks off looks like a short one.

    The child has closed its pipes, or nobody reads them any more.
    """
    if said := told.read(1000).decode(errors="replace"):
        raise Unreadable(said)
    child.join(SECONDS)
    if child.exitcode != 0:
        code = child.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        raise Unreadable(f"the process that reads it ended with {how}")


def serve(file: int, rows: int, words: int, columns: list[str] | None) -> None:
    """What the child does: read the file `file`, send rows to `rows` and trouble to `words`."""
    code = 1
    try:
        gc.disable()  # what the parent has thrown away is not to be cleaned up here as well
        close_all_but(file, rows, words)
        with open(words, "w", encoding="utf-8") as told:
            try:
                with open(file, "rb") as source, open(rows, "wb") as sink:
                    send(source, sink, columns)
                code = 0
            except MemoryError:
                told.write("it unpacks to more than the memory that its footer gives reason for")
            except Exception as error:
                told.write(" ".join(str(error).split())[:300] or type(error).__name__)
    finally:
        os._exit(code)  # at once: nothing that the parent has begun is to be finished here


def send(source: BinaryIO, sink: BinaryIO, columns: list[str] | None) -> None:
    pa.allocate_buffer(BUFFER)  # its allocator takes a gigabyte of addresses at its first use
    limit_memory(MEMORY)
    # in pieces: by default a whole row group, maybe the whole file, is read at once
    with pa.parquet.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
        fields = [field.with_type(plain(field.type)) for field in file.schema_arrow]
        if columns is None:
            pa.ipc.new_stream(sink, pa.schema(fields)).close()
            return
        needed, rows = limits(file.metadata, set(columns))
        limit_memory(MEMORY + needed)
        places = {field.name: field for field in fields}
        schema = pa.schema([places[name] for name in columns])
        with pa.ipc.new_stream(sink, schema) as stream:
            for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                stream.write_batch(batch.select(columns).cast(schema))


def limits(footer: pa.parquet.FileMetaData, columns: set[str]) -> tuple[int, int]:
    """Bytes that the columns may need together while they are read, and rows to read at once."""
    most = unpacked = 0
    for group in map(footer.row_group, range(footer.num_row_groups)):
        chunks = [
            chunk
            for chunk in map(group.column, range(group.num_columns))
            if chunk.path_in_schema.split(".")[0] in columns or chunk.path_in_schema in columns
        ]
        sizes = [max(chunk.total_uncompressed_size, 0) for chunk in chunks]
        most = max(most, sum(min(COLUMN, 3 * size) for size in sizes))
        unpacked += sum(sizes)
    rows = BATCH * max(footer.num_rows, 1) // max(unpacked, 1)
    return most, min(max(rows, 1), ROWS)


def plain(kind: pa.DataType) -> pa.DataType:
    """What a category, an extension or a view stands for."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    return pa.large_string() if pa.types.is_string_view(kind) else kind


def limit_memory(more: int) -> None:
    """Let this process take `more` bytes than now. Best effort where a limit is unknown."""
    import resource

    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, resource.RLIM_INFINITY))
