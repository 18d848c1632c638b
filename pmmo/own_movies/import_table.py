"""`python -m pmmo import`: a table of movies -> an HDF5 file in the published layout.

The table is read twice: ids, genres and splits first, which decide each movie's row, then the
vectors, a piece at a time, each to its place. What was written is read back and must pass the
checks that `extract` and `predict` make before it gets its name.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pmmo.core.errors import PmmoError
from pmmo.core.names import SPLITS, Provenance
from pmmo.core.progress import Progress
from pmmo.core.writing import growing
from pmmo.data.extract import chunks
from pmmo.data.value_checks import LARGEST, check_labels, usable
from pmmo.hdf5.layout import Column
from pmmo.hdf5.layout_checks import ID_BYTES, check_features, check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile
from pmmo.hdf5.writer import allocate_movies, write_provenance
from pmmo.own_movies.embeddings import Embedding, find_embedding
from pmmo.own_movies.features import ANY_SIZE, Features, read_ids
from pmmo.own_movies.genre_cells import (
    Seen,
    check_separator,
    flagged_genres,
    genre_names,
    genres_of,
)
from pmmo.own_movies.tables import Place, Table, open_table

SPLIT_COLUMN = "split"
SPLIT_WORDS = {name: name for name in SPLITS} | {
    **dict.fromkeys(("val", "valid", "validation", "development"), "dev"),
    **{"training": "train", "testing": "test"},
}
MOVIES = 10_000_000  # whose ids fit in memory
FEWEST = 2  # movies of a split: batch norm by a set's own statistics needs company
BATCH = 1024  # movies in memory at once when the file is read back


@dataclass(frozen=True)
class Catalogue:
    """The table's rows, in its order."""

    ids: list[str]
    genres: list[frozenset[str]]  # empty where the movies are unlabelled
    splits: list[str] | None  # None where the table has no such column
    no_value: Mapping[str, int]  # words that stand for no genre, and how often


@dataclass(frozen=True)
class Plan:
    """Where each row of the table goes, and what the rows of the file are."""

    place: np.ndarray  # (N,) row of the table -> row of the file
    splits: Mapping[str, tuple[int, int]]  # empty where the movies are unlabelled
    genre_names: tuple[str, ...]


def import_table(
    table: Path,
    output: Path,
    *,
    id: str = "id",
    genres: str = "genres",
    text: str = "text",
    image: str = "image",
    separator: str = "|",
    shares: Sequence[float] | None = None,
    seed: int = 0,
    unlabelled: bool = False,
) -> str:
    """Write the movies of `table` to `output` in the published layout; says what it wrote.

    `id`, `genres`, `text` and `image` name columns (docs/own-data.md says of what kinds); `shares`
    are those of train, dev and test for a random split from `seed`, where the table has no column
    `split`. With `unlabelled` the file gets ids and vectors only, for prediction. PmmoError names
    the row and column that is wrong; `output` appears whole or not at all.
    """
    if not separator:
        raise PmmoError("--separator is empty. Give the text that stands between two genres.")
    source = open_table(table)
    vectors = {
        "features": find_embedding(source, text, "--text"),
        "vgg_features": find_embedding(source, image, "--image"),
    }
    catalogue = read_catalogue(source, id, None if unlabelled else genres, separator)
    for embedding in vectors.values():
        check_matrix(embedding, len(catalogue.ids), table)
    if unlabelled:
        plan = Plan(np.arange(len(catalogue.ids)), {}, ())
    else:
        plan = make_plan(catalogue, shares, seed, table)
    if output.exists() and output.samefile(table):
        raise PmmoError(f"{output}: this is the table. Give the HDF5 file another name.")
    with growing(output) as path:
        without_text = write(path, source, id, catalogue, plan, vectors)
        read_back(path, labelled=not unlabelled)
        write_provenance(path, provenance(table, catalogue, plan, seed))
    return describe(output, catalogue, plan, vectors, without_text)


def read_catalogue(table: Table, id: str, genres: str | None, separator: str) -> Catalogue:
    """Ids, and genres and splits where `genres` names their column or columns, each checked."""
    table.require(id, "--id")
    of_genres = [] if genres is None else genre_columns(table, genres)
    of_split = [SPLIT_COLUMN] if of_genres and SPLIT_COLUMN in table.types else []
    columns = [id, *of_genres, *of_split]
    rows: dict[str, int] = {}
    labels: list[frozenset[str]] = []
    splits: list[str] = []
    seen = Seen()
    for piece in table.pieces(list(dict.fromkeys(columns))):
        cells = [piece.column(column).to_pylist(maps_as_pydicts="lossy") for column in columns]
        for name, *rest in zip(*cells, strict=True):
            row = len(rows) + 1
            name = checked_id(name, Place(table.path, row), id, rows)
            rows[name] = row
            place = Place(table.path, row, name)
            if of_split:
                splits.append(checked_split(rest.pop(), place))
            if len(rest) == 1:
                labels.append(genres_of(rest[0], separator, place, genres or "", seen))
            elif rest:
                labels.append(flagged_genres(rest, of_genres, place, seen))
        if len(rows) > MOVIES:
            raise PmmoError(f"{table.path}: has more than {MOVIES:,} rows. Give it in parts.")
    if not rows:
        raise PmmoError(f"{table.path}: has no rows.")
    check_separator(seen, separator, table, genres or "")
    return Catalogue(list(rows), labels, splits or None, seen.no_value)


def genre_columns(table: Table, genres: str) -> list[str]:
    """The column called `genres`, or several of 0 and 1 with commas between their names."""
    if genres in table.types:
        return [genres]
    columns = [name.strip() for name in genres.split(",")]
    for column in columns:
        if column not in table.types:
            raise PmmoError(
                f"{table.path}: has no column {column!r:.60}. Name the column of genres with "
                "--genres, or columns of 0 and 1 with commas between; or write a file for "
                "prediction alone with --unlabelled."
            )
    return columns


def checked_id(cell: object, place: Place, column: str, rows: Mapping[str, int]) -> str:
    if isinstance(cell, bool) or not isinstance(cell, str | int | None):
        raise place.refusal(column, f"{cell!r:.60} is no id; expected text or a whole number.")
    text = "" if cell is None else str(cell).strip()
    if not text:
        raise place.refusal(column, "the id is empty. Give each movie an id.")
    if not text.isascii() or not text.isprintable() or len(text) > ID_BYTES:
        raise place.refusal(
            column, f"the id {text!r:.80} is not printable ASCII of at most {ID_BYTES} characters."
        )
    if text in rows:
        raise place.refusal(column, f"the id {text!r} is that of row {rows[text]} too. Keep one.")
    return text


def checked_split(cell: object, place: Place) -> str:
    split = SPLIT_WORDS.get(str(cell).strip().lower())
    if split is None:
        raise place.refusal(SPLIT_COLUMN, f"{cell!r:.60}; expected {', '.join(SPLITS)}.")
    return split


def check_matrix(embedding: Embedding, movies: int, table: Path) -> None:
    if embedding.rows not in (None, movies):
        raise PmmoError(
            f"{embedding.labels}: has {embedding.rows:,} rows, the table {table} has {movies:,}. "
            "Give one row per movie, in the table's order."
        )


def make_plan(catalogue: Catalogue, shares: Sequence[float] | None, seed: int, table: Path) -> Plan:
    """Each movie's row: train, dev and test in turn, within each the table's order."""
    names = genre_names(catalogue.genres)
    if not names:
        raise PmmoError(f"{table}: no movie has a genre. Is the column of genres the right one?")
    movies = len(catalogue.ids)
    if movies < FEWEST * len(SPLITS):
        raise PmmoError(
            f"{table}: has {movies} movies; train, dev and test need {FEWEST} each. Give more, or "
            "write a file for prediction alone with --unlabelled."
        )
    if catalogue.splits is None:
        splits = random_splits(movies, shares or (0.6, 0.1, 0.3), seed)
    elif shares is None:
        splits = catalogue.splits
    else:
        raise PmmoError(
            f"{table}: has a column {SPLIT_COLUMN!r}, and --split asks for a random one. Leave "
            "the option out, or rename the column."
        )
    counts = Counter(splits)
    if small := [name for name in SPLITS if counts[name] < FEWEST]:
        raise PmmoError(
            f"{table}, column {SPLIT_COLUMN!r}: {counts[small[0]]} of the {movies:,} movies is for "
            f"{small[0]}; each of {', '.join(SPLITS)} needs {FEWEST}. Give it some, or drop the "
            "column for a random split."
        )
    if blank := [name for name in SPLITS if name not in labelled(splits, catalogue.genres)]:
        raise PmmoError(
            f"{table}: no movie of {blank[0]} has a genre, so nothing can be scored there. Give it "
            "some; or draw other splits (--seed); or write movies to predict with --unlabelled."
        )
    ends = list(accumulate((counts[name] for name in SPLITS), initial=0))
    order = np.argsort([SPLITS.index(name) for name in splits], kind="stable")
    place = np.empty(movies, int)
    place[order] = np.arange(movies)
    bounds = {name: (ends[i], ends[i + 1]) for i, name in enumerate(SPLITS)}
    return Plan(place, bounds, names)


def labelled(splits: Sequence[str], genres: Sequence[frozenset[str]]) -> set[str]:
    """Splits that have a movie with a genre."""
    return {split for split, names in zip(splits, genres, strict=True) if names}


def random_splits(movies: int, shares: Sequence[float], seed: int) -> list[str]:
    """The split of each of the movies, drawn without regard to their genres."""
    train, dev, _ = (round(end * movies) for end in accumulate(shares))
    train = min(max(train, FEWEST), movies - 2 * FEWEST)
    dev = min(max(dev, train + FEWEST), movies - FEWEST)
    names = np.repeat(SPLITS, [train, dev - train, movies - dev])
    return np.random.default_rng(seed).permutation(names).tolist()


def write(
    path: Path,
    table: Table,
    id: str,
    catalogue: Catalogue,
    plan: Plan,
    vectors: Mapping[str, Embedding],
) -> int:
    """All columns to `path`; the number of movies without text."""
    movies = len(catalogue.ids)
    ids = np.empty(movies, np.array(catalogue.ids, "S").dtype)
    ids[plan.place] = np.array(catalogue.ids, "S")
    small = {"imdb_ids": ids}
    if plan.genre_names:
        position = {name: k for k, name in enumerate(plan.genre_names)}
        small["genres"] = np.zeros((movies, len(position)), "<i4")
        for place, names in zip(plan.place, catalogue.genres, strict=True):
            small["genres"][place, [position[name] for name in names]] = 1
    shapes = {name: (values.shape, values.dtype.str) for name, values in small.items()}
    shapes |= {name: ((movies, item.width), "<f4") for name, item in vectors.items()}
    columns = allocate_movies(path, shapes, plan.genre_names, plan.splits)
    with path.open("r+b") as file:
        for name, values in small.items():
            file.seek(columns[name].offset)
            file.write(values.tobytes())
        without_text = write_vectors(file, table, id, catalogue, plan, vectors, columns)
        file.flush()
        os.fsync(file.fileno())
    return without_text


def write_vectors(
    file: BinaryIO,
    table: Table,
    id: str,
    catalogue: Catalogue,
    plan: Plan,
    vectors: Mapping[str, Embedding],
    columns: Mapping[str, Column],
) -> int:
    first, without_text = 0, 0
    wanted = dict.fromkeys([id, *(name for item in vectors.values() for name in item.columns)])
    total = sum(columns[name].nbytes for name in vectors)
    with Progress("import", total) as progress:
        for piece in table.pieces(list(wanted)):

            def refuse(row: int, column: str, what: str, first: int = first) -> PmmoError:
                place = Place(table.path, first + row + 1, catalogue.ids[first + row])
                return place.refusal(column, what)

            places = plan.place[first : first + len(piece)]
            for name, embedding in vectors.items():
                values = embedding.read(piece, first, refuse)  # (n, W)
                bad = ~usable(values)
                empty = np.isnan(values).all(axis=1)
                if name == "features":  # as in the published file: NaN throughout, no text
                    bad[empty] = False
                    without_text += int(empty.sum())
                if bad.any():
                    row, number = np.argwhere(bad)[0].tolist()
                    raise refuse(row, *not_finite(embedding, number, values[row], empty[row]))
                pour(file, columns[name], places, values)
                progress.moved(values.nbytes)
            first += len(piece)
    return without_text


def not_finite(
    embedding: Embedding, number: int, vector: np.ndarray, empty: bool
) -> tuple[str, str]:
    """(column, what is wrong) of the first number that is none."""
    if empty:
        return embedding.label(0), "there is no vector. Give one, or leave out that movie."
    where = f"number {number} is " if isinstance(embedding.labels, str) else ""
    return embedding.label(number), (
        f"{where}{vector[number]:g}, expected a finite number of at most {LARGEST:.2g}: larger "
        "ones cannot be squared. Mend or leave out that movie."
    )


def pour(file: BinaryIO, column: Column, places: np.ndarray, values: np.ndarray) -> None:
    """Write rows to their places; runs of neighbours, of which there are few, at once."""
    order = np.argsort(places)
    places, values = places[order], values[order]
    starts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    for start, stop in pairwise(starts):
        file.seek(column.offset + int(places[start]) * column.row_bytes)
        file.write(values[start:stop].tobytes())


def read_back(path: Path, *, labelled: bool) -> None:
    """Check the whole file as `extract` and `predict` do; PmmoError where it fails."""
    with LocalFile(path) as source:
        facts = inspect(source)
        if labelled:
            columns = check_layout(facts, source.name, source.size, ANY_SIZE).columns
        else:
            columns = check_features(facts, source.name, source.size)
        ids = read_ids(source, columns["imdb_ids"])
        for _ in Features(source, columns, ids, range(len(ids)), "zeros").batches(BATCH):
            pass
        if labelled:
            names = [item.decode() for item in ids.tolist()]
            for first, rows in chunks(source, columns["genres"]):
                check_labels(rows, first, source.name, names)


def provenance(table: Path, catalogue: Catalogue, plan: Plan, seed: int) -> Provenance:
    note = "Made from a table by `python -m pmmo import`"
    if plan.splits:
        drawn = f"at random, seed {seed}" if catalogue.splits is None else "by its column"
        note += f", split {drawn}"
    return {
        "kind": "file",
        "source": table.name,
        "rows": len(catalogue.ids),
        "sha256": {},
        "pinned": False,
        "note": f"{note}.",
    }


def describe(
    output: Path,
    catalogue: Catalogue,
    plan: Plan,
    vectors: Mapping[str, Embedding],
    without_text: int,
) -> str:
    widths = f"text {vectors['features'].width:,}, image {vectors['vgg_features'].width:,} wide"
    bounds = ", ".join(f"{name} {stop - start:,}" for name, (start, stop) in plan.splits.items())
    lines = [f"{output}: {len(catalogue.ids):,} movies ({bounds or 'unlabelled'}); {widths}"]
    if plan.splits:
        counts = count(catalogue.genres)
        lines.append(
            f"{len(plan.genre_names)} genres: "
            + ", ".join(f"{name} {counts[name]:,}" for name in plan.genre_names)
        )
        start, stop = plan.splits["train"]
        trained = [
            names
            for place, names in zip(plan.place, catalogue.genres, strict=True)
            if start <= place < stop
        ]
        if unseen := [name for name in plan.genre_names if name not in count(trained)]:
            lines.append(f"no movie of train has: {', '.join(unseen)} (cannot be learned)")
        if blank := sum(not names for names in catalogue.genres):
            lines.append(f"without a genre: {blank:,}")
        if catalogue.no_value:
            words = ", ".join(f"{word} {times:,}" for word, times in catalogue.no_value.items())
            lines.append(f"taken as no genre: {words}")
        setting = shlex.quote(f"data.source={output}")
        lines.append(
            f"Train on it with `dvc exp run -f -S {setting} experiment`: without -f, DVC does not "
            "see that a file of a name it knows has other movies."
        )
    if without_text:
        lines.append(f"without text: {without_text:,} (data.nan_text says what becomes of them)")
    return "\n".join(lines)


def count(genres: Iterable[frozenset[str]]) -> Counter[str]:
    """Movies of each genre."""
    return Counter(name for names in genres for name in names)
