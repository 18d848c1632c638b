"""A user's table, CSV or Parquet: its columns, and its rows a piece at a time."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pmmo.core.errors import PmmoError
from pmmo.own_movies.delimited import is_delimited, open_delimited
from pmmo.own_movies.parquet import Unreadable, columns_of, read_parquet

PARQUET = (".parquet", ".pq")
UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException, Unreadable)


@dataclass(frozen=True)
class Table:
    """A CSV file, all of whose columns are text, or a Parquet file."""

    path: Path
    types: dict[str, pa.DataType]  # by column, in order
    read: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    decimal: str = "."  # what stands before the decimals in text

    def pieces(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in order, with these columns alone."""
        try:
            yield from self.read(columns)
        except UNREADABLE as error:
            raise unreadable(self.path, error) from None

    def require(self, column: str, option: str) -> str:
        """The column, or PmmoError where the table has not got it."""
        if column not in self.types:
            raise PmmoError(
                f"{self.path}: has no column {column!r}; its columns are {listed(self.types)}. "
                f"Name the right one with {option}."
            )
        return column


def open_table(path: Path) -> Table:
    """The table and the types of its columns; PmmoError where it cannot be read."""
    parquet = path.suffix.lower() in PARQUET
    if not parquet and not is_delimited(path):
        raise PmmoError(
            f"{path}: a table is a file that ends with .csv, .tsv (packed: .gz) or .parquet. Save "
            "it in one of these forms; unpack an archive first."
        )
    decimal = "."
    read: Callable[..., Any]
    try:
        if path.exists() and not path.is_file():
            raise PmmoError(f"{path}: is not a regular file. Give the path of a table.")
        if parquet:
            fields, read = columns_of(path), partial(read_parquet, path)
        else:
            names, mark, read = open_delimited(path)
            fields = [(name, pa.string()) for name in names]
            decimal = "," if mark == ";" else "."
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    if not fields:
        raise PmmoError(f"{path}: cannot be read as a table (it is empty). Give some movies.")
    if twice := [name for name, count in Counter(name for name, _ in fields).items() if count > 1]:
        raise PmmoError(f"{path}: two columns are called {twice[0]!r:.60}. Rename one.")
    return Table(path, dict(fields), read, decimal)


def unreadable(path: Path, error: Exception) -> PmmoError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PmmoError(
        f"{path}: cannot be read as a table ({' '.join(reason.split())[:300]}). Check the path; "
        "save the file as CSV in UTF-8 with a header, or as Parquet."
    )


def listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"{name!r:.60}" for name in names[:most]) + more


@dataclass(frozen=True)
class Place:
    """Where a cell stands, for messages. `row` counts from 1, without the header."""

    table: Path
    row: int
    id: str | None = None

    def refusal(self, column: str, what: str) -> PmmoError:
        named = "" if self.id is None else f" (id {self.id!r})"
        return PmmoError(f"{self.table}, row {self.row}{named}, column {column!r}: {what}")
