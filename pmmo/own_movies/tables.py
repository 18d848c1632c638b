"""A user's table, CSV or Parquet: its columns, and its rows a piece at a time."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pmmo.core.errors import PmmoError
from pmmo.hdf5.layout_checks import GENRES, NAME_LENGTH

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
BLOCK = 16 << 20  # bytes of a CSV file in memory at once: a row must fit
ROWS = 1024  # of a Parquet file in memory at once
BUFFER = 1 << 20  # bytes read of a Parquet column at once


@dataclass(frozen=True)
class Table:
    """A CSV file, all of whose columns are text, or a Parquet file."""

    path: Path
    types: dict[str, pa.DataType]  # by column, in order

    def pieces(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows in order, with these columns alone."""
        try:
            if self.path.suffix.lower() in PARQUET:
                # in pieces: by default a whole row group, maybe the whole file, is read at once
                with pa.parquet.ParquetFile(
                    self.path, buffer_size=BUFFER, pre_buffer=False
                ) as file:
                    yield from file.iter_batches(ROWS, columns=list(columns))
            else:
                yield from open_csv(self.path, columns)
        except (OSError, pa.ArrowException) as error:
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
    suffix = path.suffix.lower()
    if suffix not in (*SEPARATORS, *PARQUET):
        raise PmmoError(
            f"{path}: a table is a file that ends with .csv, .tsv or .parquet. Name it so, or "
            "save it in one of these forms."
        )
    try:
        if suffix in PARQUET:
            with pa.parquet.ParquetFile(path) as file:
                fields = [(field.name, field.type) for field in file.schema_arrow]
        else:
            with open_csv(path) as reader:
                fields = [(name, pa.string()) for name in reader.schema.names]
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    names = [name for name, _ in fields]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PmmoError(f"{path}: two columns are called {twice[0]!r}. Rename one.")
    return Table(path, dict(fields))


def open_csv(path: Path, columns: Sequence[str] | None = None) -> pa.csv.CSVStreamingReader:
    """A reader of a CSV file that leaves every cell the text it is."""
    return pa.csv.open_csv(
        path,
        pa.csv.ReadOptions(use_threads=False, block_size=BLOCK),
        pa.csv.ParseOptions(delimiter=SEPARATORS[path.suffix.lower()], newlines_in_values=True),
        pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in columns or ()}, include_columns=columns
        ),
    )


def unreadable(path: Path, error: Exception) -> PmmoError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PmmoError(
        f"{path}: cannot be read as a table ({' '.join(reason.split())[:300]}). Check the path; "
        "save the file as CSV in UTF-8 with a header, or as Parquet."
    )


def listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


@dataclass(frozen=True)
class Place:
    """Where a cell stands, for messages. `row` counts from 1, without the header."""

    table: Path
    row: int
    id: str | None = None

    def refusal(self, column: str, what: str) -> PmmoError:
        named = "" if self.id is None else f" (id {self.id!r})"
        return PmmoError(f"{self.table}, row {self.row}{named}, column {column!r}: {what}")


def genres_of(
    cell: object, separator: str, place: Place, column: str, spelled: dict[str, tuple[str, int]]
) -> frozenset[str]:
    """The genres of one movie, none for an empty cell; PmmoError for what is no name.

    `spelled` remembers how each genre was written first (lower case -> name, row) and is added to:
    the same genre in another case is refused, for it would count as another.
    """
    names = frozenset(split_cell(cell, separator, place, column))
    for name in sorted(names):
        if not name.isprintable() or len(name) > NAME_LENGTH:
            raise place.refusal(column, f"{name!r:.60} is not a printable name of a genre.")
        known, row = spelled.setdefault(name.casefold(), (name, place.row))
        if known != name:
            raise place.refusal(
                column, f"{name!r} is {known!r} in row {row}. Write a genre in one way."
            )
    if len(spelled) > GENRES:
        raise place.refusal(column, f"there are more than {GENRES:,} genres. Is it the right one?")
    return names


def split_cell(cell: object, separator: str, place: Place, column: str) -> list[str]:
    if cell is None:
        return []
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise place.refusal(column, f"{cell!r:.60} is not a JSON list of names.") from None
    elif isinstance(cell, str):
        cell = cell.split(separator) if cell.strip() else []
    if not isinstance(cell, list) or not all(isinstance(name, str) for name in cell):
        raise place.refusal(
            column, f"{cell!r:.60}; expected names with {separator!r} between, or a list of names."
        )
    names = [name.strip() for name in cell]
    if "" in names:
        raise place.refusal(column, f"a name is empty in {cell!r:.60}.")
    return names


def genre_names(genres: Iterable[frozenset[str]]) -> tuple[str, ...]:
    """All names, the most frequent first, as in the published file; equals by the alphabet."""
    counts = Counter(name for names in genres for name in names)
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))
