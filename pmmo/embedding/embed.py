"""`python -m pmmo embed`: a table of plots and paths of posters -> HDF5 in the published layout.

A first look at the table finds empty plots and missing files before anything long begins. Then
plots and posters are encoded a batch at a time, and the file is written as `import` writes it.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from pmmo.core.cores import usable_cores
from pmmo.core.errors import PmmoError
from pmmo.core.outs import check_output
from pmmo.core.progress import tell
from pmmo.core.writing import check_writable
from pmmo.data.value_checks import usable
from pmmo.embedding.encoder import Encoder
from pmmo.embedding.image import IMAGE_ENCODERS, open_image
from pmmo.embedding.text import TEXT_ENCODERS
from pmmo.hdf5.encoders import KEY, record
from pmmo.own_movies.catalogue import Catalogue, make_plan, read_catalogue
from pmmo.own_movies.embeddings import Embedding, is_text
from pmmo.own_movies.import_table import provenance, write_file
from pmmo.own_movies.summary import describe
from pmmo.own_movies.tables import Place, Table, open_table
from pmmo.training.device import choose_device

MOST = 10  # problems that are told one by one
LINE_SECONDS = 20.0


class Movie(NamedTuple):
    """A row of the table, counted from 0."""

    row: int
    plot: str
    poster: Path | None


@dataclass
class Problems:
    """What is wrong with which movies, in the order in which it was found."""

    table: Path
    ids: Sequence[str]
    found: list[tuple[int, str]] = field(default_factory=list)  # row, sentence

    def add(self, row: int, column: str, what: str) -> None:
        place = Place(self.table, row + 1, self.ids[row])
        self.found.append((row, str(place.refusal(column, f"{what}."))))

    def rows(self) -> set[int]:
        return {row for row, _ in self.found}

    def refuse(self) -> None:
        """PmmoError with the first, where there is any."""
        if self.found:
            others = len(self.rows()) - 1
            more = f" Other movies with a fault: {others:,}." if others else ""
            raise PmmoError(
                f"{self.found[0][1]}{more} Mend them, or choose what becomes of such movies: "
                "--on-bad zeros or --on-bad drop."
            )

    def lines(self, become: str) -> Iterator[str]:
        if self.found:
            yield f"{len(self.rows()):,} movies with a fault {become}:"
            yield from (f"  {sentence}" for _, sentence in self.found[:MOST])
            if len(self.found) > MOST:
                yield f"  and {len(self.found) - MOST:,} more faults"


def embed_table(
    table: Path,
    output: Path,
    *,
    text_encoder: str,
    image_encoder: str,
    text_column: str = "plot",
    image_column: str = "poster",
    on_bad: str = "error",
    batch_size: int = 64,
    id: str = "id",
    genres: str = "genres",
    separator: str = "|",
    shares: Sequence[float] | None = None,
    seed: int = 0,
    split_by: str | None = None,
    unlabelled: bool = False,
) -> str:
    """Write the movies of `table`, encoded, to `output`; says what it wrote.

    `text_encoder` and `image_encoder` are KIND:WHERE (docs/own-data.md). `on_bad` says what
    becomes of a movie whose plot or poster cannot be encoded: `error` ends here, `zeros` writes no
    text (NaN, as in the published file) or an image of zeros, `drop` leaves the movie out. The
    other options are those of `import_table`. PmmoError says what is wrong; `output` appears whole
    or not at all.
    """
    find_text, of_text = chosen(TEXT_ENCODERS, text_encoder, "--text-encoder")
    find_image, of_image = chosen(IMAGE_ENCODERS, image_encoder, "--image-encoder")
    check_output(output, table, Path(of_text), Path(of_image.partition(":")[2]))  # NAME:WEIGHTS
    check_writable(output)
    source = open_table(table)
    columns = (
        text_of(source, text_column, "--text-column"),
        text_of(source, image_column, "--image-column"),
    )
    catalogue = read_catalogue(source, id, None if unlabelled else genres, separator)
    make_plan(catalogue, shares, seed, split_by, unlabelled, table)  # its refusals before long work
    problems = Problems(table, catalogue.ids)
    first_look(source, columns, problems)
    if on_bad == "error":
        problems.refuse()
    device = choose_device("auto")
    text = find_text(of_text, lambda: (m.plot for m in movies(source, columns)), device)
    image = find_image(of_image, device)
    with (
        tempfile.TemporaryFile(dir=output.parent) as texts,  # without a name: gone when we are
        tempfile.TemporaryFile(dir=output.parent) as images,
    ):
        rows = len(catalogue.ids)
        vectors = {
            "features": on_disk(texts, (rows, text.width), output.parent),
            "vgg_features": on_disk(images, (rows, image.width), output.parent),
        }
        encode(source, columns, (text, image), vectors, problems, on_bad, batch_size)
        bad = problems.rows() if on_bad == "drop" else set()
        kept = np.array([row for row in range(rows) if row not in bad], int)
        if not len(kept):
            raise PmmoError(f"{table}: no movie is left: {problems.found[0][1]}")
        catalogue = only(catalogue, kept)
        plan = make_plan(catalogue, shares, seed, split_by, unlabelled, table)
        found = {name: embedding(values, kept) for name, values in vectors.items()}
        encoders = record({"text": text.identity, "image": image.identity})
        origin = provenance("embed", table, catalogue, plan, seed, split_by) | {KEY: encoders}
        ids = table_of_ids(source, id, catalogue)
        without_text = write_file("embed", output, ids, id, catalogue, plan, found, origin)
    lines = [
        describe(output, catalogue, plan, found, without_text),
        f"text by {text.identity}, image by {image.identity}, on {device}",
        *problems.lines("were left out" if on_bad == "drop" else "have no text or zeros"),
    ]
    return "\n".join(lines)


def chosen(kinds: Mapping[str, Any], text: str, option: str) -> tuple[Any, str]:
    """The loader of KIND:WHERE, and WHERE."""
    kind, _, where = text.partition(":")
    if kind not in kinds or not where:
        raise PmmoError(
            f"{option} is {text!r:.80}; expected one of {', '.join(f'{k}:…' for k in kinds)} "
            "(docs/own-data.md)."
        )
    return kinds[kind], where


def text_of(table: Table, column: str, option: str) -> str:
    """A column that holds text."""
    kind = table.types[table.require(column, option)]
    if not is_text(kind):
        raise PmmoError(
            f"{table.path}: column {column!r} holds {kind!s:.60}, expected text. Name the right "
            f"one with {option}."
        )
    return column


def movies(table: Table, columns: tuple[str, str]) -> Iterator[Movie]:
    """The rows; a poster's path is seen from the table's folder."""
    row = 0
    for piece in table.pieces(list(dict.fromkeys(columns))):
        for plot, poster in zip(*(piece.column(c).to_pylist() for c in columns), strict=True):
            path = (poster or "").strip()
            yield Movie(row, (plot or "").strip(), table.path.parent / path if path else None)
            row += 1


def on_disk(file: IO[bytes], shape: tuple[int, int], folder: Path) -> np.ndarray:
    """An array of zeros (float32) in a file; PmmoError where the disk has no room for it."""
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS; a write without room would end us
            os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
    except OSError as error:
        raise PmmoError(
            f"{folder}: has no room for the vectors of {shape[0]:,} movies ({error.strerror}). "
            "Free some space, or name a place that has some."
        ) from None
    return np.memmap(file, "<f4", "w+", shape=shape)


def first_look(table: Table, columns: tuple[str, str], problems: Problems) -> None:
    """Note empty plots, and posters that are not there."""
    for movie in movies(table, columns):
        if not movie.plot:
            problems.add(movie.row, columns[0], "the plot is empty")
        if movie.poster is None:
            problems.add(movie.row, columns[1], "there is no path of an image")
        elif not is_file(movie.poster):
            problems.add(movie.row, columns[1], f"there is no file {movie.poster}")


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def encode(
    table: Table,
    columns: tuple[str, str],
    encoders: tuple[Encoder, Encoder],
    vectors: Mapping[str, np.ndarray],
    problems: Problems,
    on_bad: str,
    batch_size: int,
) -> None:
    """Fill `vectors`: without a plot NaN, without a poster zeros."""
    text, image = encoders
    noted = problems.rows()
    shown = Counted(len(vectors["features"]))

    def opened(movie: Movie) -> Any:
        """The prepared poster; a text that says what is wrong with it; None if that is known."""
        if movie.poster is None or not is_file(movie.poster):
            return None
        try:
            return image.prepare(open_image(movie.poster))
        except (ValueError, OSError, RuntimeError) as error:
            return str(error)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for batch in batches(movies(table, columns), batch_size):
            first, last = batch[0].row, batch[-1].row + 1
            vectors["features"][first:last] = np.nan
            if told := [movie for movie in batch if movie.plot]:
                values = text.encode([text.prepare(movie.plot) for movie in told])
                put(vectors["features"], told, values, columns[0], problems, is_text=True)
            posters = list(zip(batch, pool.map(opened, batch), strict=True))
            for movie, poster in posters:
                if isinstance(poster, str):
                    problems.add(movie.row, columns[1], poster)
                elif poster is None and movie.row not in noted:
                    problems.add(movie.row, columns[1], "its file is gone")
            if seen := [pair for pair in posters if isinstance(pair[1], torch.Tensor)]:
                values = image.encode([poster for _, poster in seen])
                seen_movies = [movie for movie, _ in seen]
                put(
                    vectors["vgg_features"],
                    seen_movies,
                    values,
                    columns[1],
                    problems,
                    is_text=False,
                )
            if on_bad == "error":
                problems.refuse()
            shown.more(len(batch))


def put(
    column: np.ndarray,
    batch: Sequence[Movie],
    values: np.ndarray,
    name: str,
    problems: Problems,
    *,
    is_text: bool,
) -> None:
    """Write usable vectors to their rows, and note the others."""
    good = np.all(usable(values), axis=1)
    for movie, vector, fine in zip(batch, values, good, strict=True):
        if fine:
            column[movie.row] = vector
        elif is_text and np.isnan(vector).all():
            problems.add(movie.row, name, "the encoder knows no word of it")
        else:
            problems.add(movie.row, name, "the encoder gives no numbers that can be squared")


def batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter (itertools.batched needs Python 3.12)."""
    while batch := list(islice(items, size)):
        yield batch


class Counted:
    """Says how many movies are encoded, every 20 seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.start = self.spoke = time.monotonic()

    def more(self, movies: int) -> None:
        self.done += movies
        now = time.monotonic()
        if now - self.spoke >= LINE_SECONDS or self.done == self.total:
            self.spoke = now
            left = (now - self.start) / self.done * (self.total - self.done)
            said = f"embed: {self.done:,} of {self.total:,} movies, {left:.0f} s left"
            tell(said, sys.stderr)


def only(catalogue: Catalogue, rows: np.ndarray) -> Catalogue:
    """The movies of some rows."""
    return replace(
        catalogue,
        ids=[catalogue.ids[row] for row in rows],
        genres=[catalogue.genres[row] for row in rows] if catalogue.genres else [],
        splits=None if catalogue.splits is None else [catalogue.splits[row] for row in rows],
    )


def table_of_ids(table: Table, id: str, catalogue: Catalogue) -> Table:
    """A table of the kept movies, whose vectors are elsewhere."""

    def read(_: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for ids in batches(iter(catalogue.ids), 4096):
            yield pa.RecordBatch.from_pydict({id: ids})

    return Table(table.path, {id: pa.string()}, read)


def embedding(values: np.ndarray, rows: np.ndarray) -> Embedding:
    """Encoded vectors as `import` takes those of a matrix."""

    def read(piece: pa.RecordBatch, first: int, _: object) -> np.ndarray:
        return values[rows[first : first + len(piece)]]

    return Embedding((), "encoded", values.shape[1], read, len(rows))
