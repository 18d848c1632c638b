"""What a table says of its movies: ids, genres and splits, each checked; and each movie's place."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from pmmo.core.errors import PmmoError
from pmmo.core.names import SPLITS
from pmmo.hdf5.layout_checks import ID_BYTES
from pmmo.own_movies.genre_cells import (
    Seen,
    check_separator,
    flagged_genres,
    genre_names,
    genres_of,
)
from pmmo.own_movies.splits import random_splits, stratified_splits
from pmmo.own_movies.tables import Place, Table

SPLIT_COLUMN = "split"
SPLIT_WORDS = {name: name for name in SPLITS} | {
    **dict.fromkeys(("val", "valid", "validation", "development"), "dev"),
    **{"training": "train", "testing": "test"},
}
MOVIES = 10_000_000  # whose ids fit in memory
PIECE = 256 << 20  # bytes of their ids and genres in memory at once
FEWEST = 2  # movies of a split: batch norm by a set's own statistics needs company


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
    genre_names: tuple[str, ...]  # likewise


def read_catalogue(table: Table, id: str, genres: str | None, separator: str) -> Catalogue:
    """Ids, and genres and splits where `genres` names their column or columns, each checked."""
    if not separator:
        raise PmmoError("--separator is empty. Give the text that stands between two genres.")
    table.require(id, "--id")
    of_genres = [] if genres is None else genre_columns(table, genres)
    of_split = [SPLIT_COLUMN] if of_genres and SPLIT_COLUMN in table.types else []
    columns = [id, *of_genres, *of_split]
    rows: dict[str, int] = {}
    labels: list[frozenset[str]] = []
    splits: list[str] = []
    seen = Seen()
    for piece in table.pieces(list(dict.fromkeys(columns))):
        if piece.nbytes > PIECE:
            raise PmmoError(
                f"{table.path}: ids and genres of {len(piece):,} rows take {piece.nbytes:,} bytes. "
                "Are the columns the right ones?"
            )
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


def make_plan(
    catalogue: Catalogue,
    shares: Sequence[float] | None,
    seed: int,
    split_by: str | None,
    unlabelled: bool,
    table: Path,
) -> Plan:
    """Each movie's row: train, dev and test in turn, within each the table's order.

    Without a column `split` the splits are drawn `split_by` genres (the default) or random.
    `unlabelled` movies keep the table's order and have neither genres nor splits.
    """
    movies = len(catalogue.ids)
    if unlabelled:
        return Plan(np.arange(movies), {}, ())
    names = genre_names(catalogue.genres)
    if not names:
        raise PmmoError(f"{table}: no movie has a genre. Is the column of genres the right one?")
    if movies < FEWEST * len(SPLITS):
        raise PmmoError(
            f"{table}: has {movies} movies; train, dev and test need {FEWEST} each. Give more, or "
            "write a file for prediction alone with --unlabelled."
        )
    if catalogue.splits is None:
        sizes = split_sizes(movies, shares or (0.6, 0.1, 0.3))
        if split_by == "random":
            splits = random_splits(sizes, seed)
        else:
            splits = stratified_splits(catalogue.genres, sizes, seed)
    elif shares is None and split_by is None:
        splits = catalogue.splits
    else:
        raise PmmoError(
            f"{table}: has a column {SPLIT_COLUMN!r}, and --split or --split-by asks to draw one. "
            "Leave the option out, or rename the column."
        )
    counts = Counter(splits)
    if small := [name for name in SPLITS if counts[name] < FEWEST]:
        raise PmmoError(
            f"{table}, column {SPLIT_COLUMN!r}: {counts[small[0]]} of the {movies:,} movies is for "
            f"{small[0]}; each of {', '.join(SPLITS)} needs {FEWEST}. Give it some, or drop the "
            "column for a drawn split."
        )
    labelled = {split for split, found in zip(splits, catalogue.genres, strict=True) if found}
    if blank := [name for name in SPLITS if name not in labelled]:
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


def split_sizes(movies: int, shares: Sequence[float]) -> tuple[int, int, int]:
    """Movies of train, dev and test."""
    train, dev, _ = (round(end * movies) for end in accumulate(shares))
    train = min(max(train, FEWEST), movies - 2 * FEWEST)
    dev = min(max(dev, train + FEWEST), movies - FEWEST)
    return train, dev - train, movies - dev
