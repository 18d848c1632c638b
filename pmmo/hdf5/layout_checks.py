"""Check whether a file has the published layout, from the facts that inspection.py found.

Nothing here uses the HDF5 library. Each message names the file, the dataset or attribute, the row
if there is one, and what to do.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from pmmo.core.names import SPLITS
from pmmo.core.text import hides, printable
from pmmo.hdf5.encoders import Identity, read_encoders
from pmmo.hdf5.layout import COLUMNS, Column, Layout
from pmmo.hdf5.sources import REMEDY, BadFile

FEATURES = ("imdb_ids", "features", "vgg_features")  # the columns that a prediction needs
RANKS = {"imdb_ids": 1, "genres": 2, "features": 2, "vgg_features": 2}
TYPES = {"genres": "<i4", "features": "<f4", "vgg_features": "<f4"}
IN_WORDS = {
    "<i4": "32-bit integers (int32, little-endian)",
    "<f4": "32-bit floats (float32, little-endian)",
}
ID_BYTES = 64  # the published ids have 7
GENRES = 10_000
NAME_LENGTH = 100  # characters of a genre's name


class Refusal(BadFile):
    """The file is not in the layout."""

    def __init__(self, name: str, what: str, remedy: str = REMEDY) -> None:
        super().__init__(f"{name}: {what} {remedy}")


def check_layout(facts: Mapping, name: str, size: int, memory_limit: float) -> Layout:
    """The layout of the file `name` of `size` bytes, from its facts; Refusal if it is invalid.

    `memory_limit` is the largest total size of the four columns, in bytes.
    """
    with _understood(name):
        columns = _columns(facts, name, size, COLUMNS)
        total = sum(column.nbytes for column in columns.values())
        if total > memory_limit:
            raise Refusal(
                name,
                f"its four columns have {total:,} bytes, more than the {memory_limit:,.0f} "
                "allowed.",
                "Is this the right file? If so, raise data.memory_limit_gb in params.yaml.",
            )
        return Layout(
            columns=columns,
            genre_names=_genre_names(facts["target_names"], name, columns["genres"].shape[1]),
            splits=_splits(facts["split"], name, columns["imdb_ids"].shape[0]),
            provenance=_provenance(facts["provenance"], name),
        )


def check_features(facts: Mapping, name: str, size: int) -> dict[str, Column]:
    """The layout of ids, text and image, as in `check_layout`; labels and splits are optional.

    Prediction reads one batch at a time, so the total size has no limit.
    """
    with _understood(name):
        return _columns(facts, name, size, FEATURES)


def encoders_of(facts: Mapping, name: str) -> dict[str, Identity]:
    """The encoders that made the features, where the file says so; no other provenance counts."""
    with _understood(name):
        return _encoders(_json(facts["provenance"].get("value") or ""), name)


def _encoders(provenance: object, name: str) -> dict[str, Identity]:
    try:
        return read_encoders(provenance)
    except ValueError as error:
        raise Refusal(name, f"file attribute 'provenance': {error}.", "Delete it.") from None


@contextmanager
def _understood(name: str) -> Iterator[None]:
    """Refusal for facts of another form: a child that a file has taken over may say anything."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise Refusal(name, "what was found in it makes no sense: it may be hostile.") from None


def _value(found: Mapping, name: str, where: str) -> Any:
    if "error" in found:
        raise Refusal(name, f"{where} cannot be read ({found['error']:.300}).")
    return found["value"]


def _json(text: str) -> object:
    """The value, or None for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _columns(facts: Mapping, name: str, size: int, wanted: Iterable[str]) -> dict[str, Column]:
    columns = {}
    for column in wanted:
        found = _value(facts["columns"][column], name, f"dataset {column!r}")
        columns[column] = _column(found, name, column, size)
    _check_rows(columns, name)
    _places(columns, name)
    return columns


def _column(found: Mapping, name: str, column: str, size: int) -> Column:
    where = f"dataset {column!r}"
    if found["link"] is None:
        raise Refusal(name, f"{where} is missing.")
    if found["link"] != "hard":
        raise Refusal(
            name,
            f"{where} is no value but a {found['link']} link, which is never followed.",
            "Store the values themselves in this file under that name.",
        )
    if found["object"] != "dataset":
        raise Refusal(name, f"{column!r} is not a dataset ({found['object']}).")
    if found["shape"] is None or len(found["shape"]) != RANKS[column]:
        shape = "none" if found["shape"] is None else tuple(found["shape"])
        wanted = "(movies,)" if RANKS[column] == 1 else "(movies, width)"
        raise Refusal(name, f"{where} has shape {shape}, expected {wanted}.")
    if found["shape"][0] == 0:
        raise Refusal(name, f"{where} has no rows.")
    if 0 in found["shape"]:
        raise Refusal(name, f"{where} has shape {tuple(found['shape'])}: no width.")
    _check_type(found["type"], name, column)
    if found["external"]:
        raise Refusal(
            name,
            f"{where} keeps its values in another file (external storage), never followed.",
            "Store the values themselves in this file.",
        )
    if found["layout"] != "contiguous" or found["filters"]:
        kind = "compressed or filtered" if found["filters"] else found["layout"]
        raise Refusal(
            name,
            f"{where} is {kind}, expected contiguous and uncompressed.",
            "Copy it with pmmo.hdf5.writer.write_movies, or with `h5repack -l CONTI -f NONE`.",
        )
    if found["offset"] is None:
        raise Refusal(name, f"{where} was declared but never written (no space allocated).")
    numbers = [*found["shape"], found["offset"], found["stored"]]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError
    result = Column(column, tuple(found["shape"]), found["type"], found["offset"])
    if found["stored"] != result.nbytes:
        raise Refusal(
            name, f"{where} stores {found['stored']:,} bytes, its shape needs {result.nbytes:,}."
        )
    if result.offset + result.nbytes > size:
        raise Refusal(
            name,
            f"{where} ends at byte {result.offset + result.nbytes:,}, the file at {size:,}: "
            "it is incomplete.",
            "Get it again.",
        )
    return result


def _check_type(found: str, name: str, column: str) -> None:
    if column == "imdb_ids":
        width = int(found[2:]) if found.startswith("|S") else 0
        if not 0 < width <= ID_BYTES:
            raise Refusal(
                name,
                f"dataset 'imdb_ids' has type {found:.100}, expected byte strings of one length "
                f"(1 to {ID_BYTES}), padded with zero bytes.",
                "Write np.array(ids, dtype='S').",
            )
    elif found != TYPES[column]:
        raise Refusal(
            name,
            f"dataset {column!r} has type {found:.100}, expected {IN_WORDS[TYPES[column]]}.",
            f"Convert it with .astype({TYPES[column]!r}).",
        )


def _check_rows(columns: Mapping[str, Column], name: str) -> None:
    lengths = {column.name: column.shape[0] for column in columns.values()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {value:,}" for key, value in lengths.items())
        raise Refusal(name, f"the columns have different numbers of rows ({listed}).")


def _places(columns: Mapping[str, Column], name: str) -> None:
    for first, second in pairwise(sorted(columns.values(), key=lambda column: column.offset)):
        if first.offset + first.nbytes > second.offset:
            raise Refusal(
                name, f"datasets {first.name!r} and {second.name!r} share the same bytes."
            )


def _genre_names(found: Mapping, name: str, count: int) -> tuple[str, ...]:
    where = "attribute 'target_names' of dataset 'genres'"
    text = _value(found, name, where)
    if text is None:
        raise Refusal(name, f"{where} is missing or not a text.")
    names = _json(text)
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise Refusal(name, f"{where} is not a JSON list of names.", "Write json.dumps(names).")
    if len(names) != count or count > GENRES:
        raise Refusal(name, f"{where} has {len(names)} names for {count} columns of labels.")
    if problem := name_problem(names):
        raise Refusal(name, f"{where}: {problem}.")
    return tuple(names)


def name_problem(names: Sequence[str]) -> str | None:
    """What is wrong with names of genres from elsewhere, if anything is."""
    for position, item in enumerate(names):
        if not item.strip() or hides(item) or len(item) > NAME_LENGTH:
            return f"name {position} is not a printable name ({item!r:.60})"
    name, count = max(Counter(map(printable, names)).items(), key=lambda item: item[1])
    return f"{name!r} appears more than once" if count > 1 else None


def _splits(found: Mapping, name: str, rows: int) -> dict[str, tuple[int, int]]:
    """Bounds of train, dev and test, equal for all columns; together they cover all rows once."""
    where = "file attribute 'split'"
    records = _value(found, name, where)
    if isinstance(records, str):
        raise Refusal(name, f"{where} {records:.300}.")
    bounds: dict[str, dict[str, tuple[int, int]]] = {}
    for number, record in enumerate(records):
        if not all(isinstance(record[key], str) for key in ("split", "source")):
            raise Refusal(name, f"{where}, record {number}: the names are not text.")
        if record["source"] not in COLUMNS or not record["available"]:
            continue
        place = f"{where}, split {record['split']!r:.60}, source {record['source']!r}"
        if record["split"] not in SPLITS:
            raise Refusal(name, f"{place}: expected one of {', '.join(SPLITS)}.")
        if record["indices"]:
            raise Refusal(name, f"{place}: lists its rows one by one, expected start and stop.")
        if record["start"] is None or record["stop"] is None:
            raise Refusal(name, f"{place}: start and stop are not integers.")
        known = bounds.setdefault(record["split"], {})
        if record["source"] in known:
            raise Refusal(name, f"{place}: appears more than once.")
        known[record["source"]] = (record["start"], record["stop"])
    for split in SPLITS:
        missing = [column for column in COLUMNS if column not in bounds.get(split, {})]
        if missing:
            raise Refusal(name, f"{where}: has no record of split {split!r} for {missing[0]!r}.")
        if len(set(bounds[split].values())) > 1:
            listed = ", ".join(f"{key} {a}–{b}" for key, (a, b) in bounds[split].items())
            raise Refusal(name, f"{where}: split {split!r} differs between columns ({listed}).")
    return _tiled({split: bounds[split]["imdb_ids"] for split in SPLITS}, name, where, rows)


def _tiled(
    splits: dict[str, tuple[int, int]], name: str, where: str, rows: int
) -> dict[str, tuple[int, int]]:
    for split, (start, stop) in splits.items():
        if start < 0 or stop > rows:
            raise Refusal(
                name, f"{where}: split {split!r} is {start}–{stop}, outside the {rows} rows."
            )
        if start >= stop:
            raise Refusal(name, f"{where}: split {split!r} is empty ({start}–{stop}).")
    ordered: Sequence = sorted(splits.items(), key=lambda item: item[1])
    edges = [("", (0, 0)), *ordered, ("", (rows, rows))]
    for (_, (_, stop)), (split, (start, _)) in pairwise(edges):
        if start < stop:
            raise Refusal(name, f"{where}: split {split!r} overlaps another in row {start}.")
        if start > stop:
            raise Refusal(name, f"{where}: rows {stop} to {start - 1} belong to no split.")
    return splits


def _provenance(found: Mapping, name: str) -> dict | None:
    text = _value(found, name, "file attribute 'provenance'")
    if text is None:
        return None
    value = _json(text)
    if not isinstance(value, dict):
        raise Refusal(name, "file attribute 'provenance' is not a JSON object.", "Delete it.")
    _encoders(value, name)
    return value
