"""CSV and TSV files as people's programs write them; every line is accounted for.

Cells are text. A record that may be read in two ways is refused, never guessed: a stray quote
would join movies to one, with the id of the first and the genres of the last.
"""

import csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from pmmo.core.errors import PmmoError

MARKS = {".csv": ",", ".tsv": "\t"}  # what usually stands between the cells
OTHER_MARKS = ";,\t"
LINE = 16 << 20  # characters of a line or a cell: a row must fit in memory
CELLS = 1 << 20  # in memory at once, or one row
GZIP = b"\x1f\x8b"
UTF16 = (b"\xff\xfe", b"\xfe\xff")

Lines: TypeAlias = Iterator[str]
Records: TypeAlias = Iterator[list[str]]


def is_delimited(path: Path) -> bool:
    return form(path) in MARKS


def form(path: Path) -> str:
    """The ending of the name, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def open_delimited(path: Path) -> tuple[list[str], str, Callable]:
    """Column names, what stands between the cells, and a reader of the rows of chosen columns."""
    with open_lines(path) as lines:
        header = next(lines, "")
    if "\0" in header:
        raise PmmoError(f"{path}: its header holds zero bytes. Save the table in UTF-8.")
    mark = max(MARKS[form(path)] + OTHER_MARKS, key=header.count)
    read = partial(literal if mark == "\t" and is_plain(path, mark) else quoted, path, mark)
    with open_lines(path) as lines:
        names = next(read(lines), [])
    return names, mark, partial(pieces, path, read, names)


def pieces(
    path: Path, read: Callable[[Lines], Records], names: list[str], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The rows in order, with these columns alone; PmmoError names a row of another width."""
    places = {name: place for place, name in enumerate(names)}
    with open_lines(path) as lines:
        rows = of_one_width(path, read(lines))
        next(rows)  # the header
        while piece := list(islice(rows, max(1, CELLS // len(names)))):
            cells = ([record[places[column]] for record in piece] for column in columns)
            arrays = [pa.array(column, pa.string()) for column in cells]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def of_one_width(path: Path, records: Records) -> Records:
    width = 0
    for row, record in enumerate(records):
        width = width or len(record)
        if len(record) != width:
            raise PmmoError(
                f"{path}, row {row}: has {len(record):,} cells, the header {width:,}. Put a cell "
                "in quotes that holds what stands between the cells."
            )
        yield record


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """The lines of a text file, unpacked; PmmoError for one that is no text, or has no end."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    unpacked = gzip.open if packed else open
    with unpacked(path, "rb") as file:
        coding = "utf-16" if file.read(2) in UTF16 else "utf-8-sig"
    with unpacked(path, "rt", encoding=coding, newline="") as file:
        yield read_lines(path, file, coding)


def read_lines(path: Path, file, coding: str) -> Lines:
    number = 0
    try:
        while line := file.readline(LINE):
            number += 1
            if len(line) == LINE:
                raise PmmoError(f"{path}, line {number}: is longer than {LINE:,} characters.")
            yield line
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise PmmoError(
            f"{path}: cannot be read as text in {coding.removesuffix('-sig').upper()} (byte "
            f"{found:#04x} soon after line {number}). Save the table in UTF-8."
        ) from None


def is_plain(path: Path, mark: str) -> bool:
    """Whether each line has as many marks as the header: then each line is a row."""
    with open_lines(path) as lines:
        marks = next(lines, "").count(mark)
        return all(line.count(mark) == marks for line in lines if line.strip("\r\n"))


def literal(path: Path, mark: str, lines: Lines) -> Records:
    """Each line is a row, as in IMDb's files: a quote means nothing but around a whole cell."""
    for line in lines:
        if line := line.rstrip("\r\n"):
            cells = line.split(mark)
            yield [unquoted(cell) for cell in cells] if '"' in line else cells


def unquoted(cell: str) -> str:
    inner = cell[1:-1].replace('""', "")
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner
    return cell[1:-1].replace('""', '"') if whole else cell


def quoted(path: Path, mark: str, lines: Lines) -> Records:
    """Records as RFC 4180 has them; PmmoError where a quote may have joined rows to one."""
    latest: list[str] = []  # lines of the record

    def noted() -> Lines:
        for line in lines:
            latest.append(line)
            yield line

    csv.field_size_limit(LINE)
    row = width = 0
    try:
        for record in csv.reader(noted(), delimiter=mark, strict=True):
            width = width or len(record)
            if len(latest) > 1 and all(line.count(mark) == width - 1 for line in latest):
                raise csv.Error(f"it runs over {len(latest)} lines that look like rows themselves")
            latest.clear()
            if record:
                yield record
                row += 1
    except csv.Error as error:
        raise PmmoError(
            f"{path}, row {row}: its quotes cannot be understood ({error}). Begin a cell with a "
            "quote only to put it in quotes whole, and write a quote within it twice."
        ) from None
