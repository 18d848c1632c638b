"""The vectors of a user's movies: columns of numbers, lists, paths of .npy files, or a matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pmmo.core.errors import PmmoError
from pmmo.own_movies.printed import unwrapped
from pmmo.own_movies.tables import Place, Table, listed

LONGEST = 16 << 20  # characters of a vector
Refuse = Callable[[int, str, str], PmmoError]  # (row within the piece, column, what is wrong)


@dataclass(frozen=True)
class Embedding:
    """A vector for each movie, from columns of the table or from a file beside it."""

    columns: tuple[str, ...]  # of the table
    labels: tuple[str, ...] | str  # what messages call each number, or the column of them all
    width: int
    read: Callable[[pa.RecordBatch, int, Refuse], np.ndarray]  # piece, its first row from 0
    rows: int | None = None  # of a matrix; None where the table's own rows hold the vectors

    def label(self, number: int) -> str:
        return self.labels if isinstance(self.labels, str) else self.labels[number]


def find_embedding(table: Table, name: str, option: str) -> Embedding:
    """What `name` stands for: NAME.npy, a column of vectors or paths, or columns NAME_0, NAME_1 …

    PmmoError where there is none, or more than one.
    """
    if name.endswith(".npy"):
        return matrix(table, name)
    numbered = numbered_columns(table, name)
    if numbered and name in table.types:
        raise PmmoError(
            f"{table.path}: has both a column {name!r} and columns {numbered[0]!r} …; "
            f"rename one kind, or choose another with {option}."
        )
    if numbered:
        for column in numbered:
            kind = table.types[column]
            if not is_number(kind) and not is_text(kind):
                raise PmmoError(f"{table.path}: column {column!r} holds {kind}, expected numbers.")
        return Embedding(
            columns=numbered,
            labels=numbered,
            width=len(numbered),
            read=lambda piece, _, refuse: read_numbers(piece, numbered, table.decimal, refuse),
        )
    if name not in table.types:
        raise PmmoError(
            f"{table.path}: has neither a column {name!r} nor columns '{name}_0', '{name}_1' …; "
            f"its columns are {listed(table.types)}. Name the right ones with {option}."
        )
    kind, folder = table.types[name], table.path.parent
    read: Callable[..., np.ndarray]
    if is_text(kind):
        read = read_cells
    elif is_list(kind) and is_number(innermost(kind)):
        read = read_lists
    else:
        raise PmmoError(
            f"{table.path}: column {name!r} holds {str(kind)[:100]}; expected lists of numbers, or "
            "text with numbers or the path of a .npy file."
        )
    width = first_width(table, name)
    return Embedding(
        columns=(name,),
        labels=name,
        width=width,
        read=lambda piece, _, refuse: read(piece, name, width, folder, refuse),
    )


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def innermost(kind: pa.DataType) -> pa.DataType:
    return innermost(kind.value_type) if is_list(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def numbered_columns(table: Table, name: str) -> tuple[str, ...]:
    """Columns NAME_0, NAME_1 … (or from 1), in the order of their numbers."""
    found: dict[int, str] = {}
    for column in table.types:
        digits = column.removeprefix(name).removeprefix("_")
        if not column.startswith(name) or not (digits.isascii() and digits.isdigit()):
            continue
        if int(digits) in found:
            raise PmmoError(
                f"{table.path}: columns {found[int(digits)]!r} and {column!r} have the same "
                "number. Rename or drop one."
            )
        found[int(digits)] = column
    if not found:
        return ()
    first = min(found)
    expected = range(first, first + len(found))
    if missing := [number for number in expected if number not in found]:
        raise PmmoError(
            f"{table.path}: number {missing[0]} is missing among the {len(found)} columns from "
            f"{found[first]!r} to {found[max(found)]!r}. Number them without gaps."
        )
    if first > 1:
        raise PmmoError(f"{table.path}: the columns {found[first]!r} … must start at 0 or 1.")
    return tuple(found[number] for number in expected)


def read_numbers(
    piece: pa.RecordBatch, columns: Sequence[str], decimal: str, refuse: Refuse
) -> np.ndarray:
    """(n, W) float32 from W columns of numbers; an empty cell is NaN."""
    values = np.empty((len(columns), len(piece)), "<f4")
    by_kind: dict[pa.DataType, list[int]] = {}
    for number, column in enumerate(columns):
        by_kind.setdefault(piece.column(column).type, []).append(number)
    for kind, numbers in by_kind.items():  # together: there may be many thousand columns
        cells = pa.concat_arrays([piece.column(columns[number]) for number in numbers])
        if is_text(kind):
            cells = pc.utf8_trim_whitespace(pc.replace_substring(cells, decimal, "."))
            cells = pc.if_else(pc.equal(cells, ""), None, cells)
        try:
            found = cells.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            place = next(place for place, cell in enumerate(cells) if not castable(cell))
            number, row = divmod(place, len(piece))
            what = f"{cells[place].as_py()!r:.60} is no number."
            raise refuse(row, columns[numbers[number]], what) from None
        values[numbers] = found.reshape(-1, len(piece))
    return values.T


def castable(cell: pa.Scalar) -> bool:
    try:
        cell.cast(pa.float32())
    except pa.ArrowInvalid:
        return False
    return True


def read_lists(
    piece: pa.RecordBatch, column: str, width: int, _: Path, refuse: Refuse
) -> np.ndarray:
    """(n, width) float32 from one column of lists of numbers; an empty cell is NaN throughout."""
    cells, lengths = with_lengths(piece.column(column))
    while is_list(cells.type.value_type):
        for row in np.flatnonzero(lengths > 1):
            raise refuse(int(row), column, f"{lengths[row]:,} rows of numbers; expected one.")
        inner = cells.flatten()
        cells, lengths = with_lengths(
            inner.take(pa.array(np.cumsum(lengths) - 1, mask=lengths == 0))
        )
    for row in np.flatnonzero((lengths != width) & (lengths != 0)):
        raise refuse(int(row), column, wrong_width(int(lengths[row]), width))
    values = np.full((len(piece), width), np.nan, "<f4")
    numbers = cells.flatten().cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    values[lengths > 0] = numbers.reshape(-1, width)
    return values


def with_lengths(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Lists, and how many items each has: none for an empty cell."""
    if pa.types.is_fixed_size_list(cells.type):
        cells = cells.cast(pa.list_(cells.type.value_type))
    return cells, pc.fill_null(pc.list_value_length(cells), 0).to_numpy()


def read_cells(
    piece: pa.RecordBatch, column: str, width: int, folder: Path, refuse: Refuse
) -> np.ndarray:
    """(n, width) float32 from cells of text: see `vector`. An empty cell is NaN throughout."""
    values = np.full((len(piece), width), np.nan, "<f4")
    for row, cell in enumerate(piece.column(column).to_pylist()):
        try:
            found = vector(cell, folder)
        except ValueError as error:
            raise refuse(row, column, f"{error}.") from None
        if found is not None and len(found) != width:
            raise refuse(row, column, wrong_width(len(found), width))
        if found is not None:
            values[row] = found
    return values


def wrong_width(found: int, expected: int) -> str:
    return f"{found:,} numbers; the movies before it have {expected:,}. All must have as many."


def vector(cell: str | None, folder: Path) -> np.ndarray | None:
    """A cell's vector (W,) float32: numbers, or the path of a .npy file, seen from `folder`.

    None for an empty cell; ValueError says what is wrong.
    """
    cell = (cell or "").strip()
    if len(cell) > LONGEST:
        raise ValueError(f"{cell[:60]!r} … is longer than {LONGEST:,} characters")
    if not cell.lower().endswith(".npy"):
        return numbers_in(cell)
    values = load_npy(folder / cell)
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 1:
        raise ValueError(f"{folder / cell} has shape {values.shape}, expected one row of numbers")
    with np.errstate(over="ignore"):
        return values.astype("<f4")


def numbers_in(cell: str) -> np.ndarray | None:
    """(W,) float32 of a text with numbers, as JSON, Python or numpy write them; None for none."""
    text = unwrapped(cell)
    while text and text[0] + text[-1] in ("[]", "()"):
        text = text[1:-1].strip()
    if not text:
        return None
    words = [word.strip() for word in text.removesuffix(",").split("," if "," in text else None)]
    try:
        with np.errstate(over="ignore"):
            values = np.array([float(word) for word in words if word != "..."], "<f4")
    except ValueError:
        why = "no list of numbers"
    else:
        if len(values) == len(words):
            return values
        why = "cut short: '...' stands for numbers"
    raise ValueError(f"{cell!r:.60} is {why}, and no path of a .npy file")


def load_npy(path: Path) -> np.ndarray:
    """The numbers of a .npy file, mapped and not read; ValueError says what is wrong with it."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header may hold anything, and numpy evaluates it
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as a .npy file ({reason})") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds no plain array of numbers")
    return values


def matrix(table: Table, name: str) -> Embedding:
    """A .npy file with one row per row of the table, found from the working folder."""
    path = Path(name)
    try:
        values = load_npy(path)
    except ValueError as error:
        raise PmmoError(f"{error}. Give the path of an array with one row per movie.") from None
    if values.ndim != 2 or 0 in values.shape:
        raise PmmoError(f"{path}: has shape {values.shape}, expected (movies, numbers).")

    def read(piece: pa.RecordBatch, first: int, _: Refuse) -> np.ndarray:
        with np.errstate(over="ignore"):
            return values[first : first + len(piece)].astype("<f4")

    return Embedding(columns=(), labels=name, width=values.shape[1], read=read, rows=len(values))


def first_width(table: Table, column: str) -> int:
    """The length of the first vector of a column; PmmoError where no movie has one."""
    row = 0
    for piece in table.pieces([column]):
        cells = piece.column(column)
        if is_list(cells.type):
            while is_list(cells.type.value_type):
                cells = cells.flatten()
            _, lengths = with_lengths(cells)
            if lengths.any():
                return int(lengths[lengths > 0][0])
            continue
        for cell in cells:
            row += 1
            try:
                found = vector(cell.as_py(), table.path.parent)
            except ValueError as error:
                raise Place(table.path, row).refusal(column, f"{error}.") from None
            if found is not None and len(found):
                return len(found)
    raise PmmoError(f"{table.path}: column {column!r} is empty in every row.")
