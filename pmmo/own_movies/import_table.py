"""`python -m pmmo import`: a table of movies -> an HDF5 file in the published layout.

The table is read twice: ids, genres and splits first, which decide each movie's row, then the
vectors, a piece at a time, each to its place. What was written is read back and must pass the
checks that `extract` and `predict` make before it gets its name.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pmmo.core.errors import PmmoError
from pmmo.core.names import Provenance
from pmmo.core.outs import check_output
from pmmo.core.progress import Progress
from pmmo.core.writing import growing
from pmmo.data.extract import chunks
from pmmo.data.value_checks import LARGEST, check_labels, usable
from pmmo.hdf5.layout import Column
from pmmo.hdf5.layout_checks import check_features, check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile
from pmmo.hdf5.writer import allocate_movies, write_provenance
from pmmo.own_movies.catalogue import Catalogue, Plan, make_plan, read_catalogue
from pmmo.own_movies.embeddings import Embedding, find_embedding
from pmmo.own_movies.features import ANY_SIZE, Features, read_ids
from pmmo.own_movies.summary import describe
from pmmo.own_movies.tables import Place, Table, open_table

BATCH = 1024  # movies in memory at once when the file is read back


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
    split_by: str | None = None,
    unlabelled: bool = False,
) -> str:
    """Write the movies of `table` to `output` in the published layout; says what it wrote.

    `id`, `genres`, `text` and `image` name columns (docs/own-data.md says of what kinds); `shares`
    are those of train, dev and test for a split that is drawn from `seed`, by genres or at random
    (`split_by`), where the table has no column `split`. With `unlabelled` the file gets ids and
    vectors only, for prediction. PmmoError names the row and column that is wrong; `output` appears
    whole or not at all.
    """
    check_output(output, table, Path(text), Path(image))  # NAME.npy
    source = open_table(table)
    vectors = {
        "features": find_embedding(source, text, "--text"),
        "vgg_features": find_embedding(source, image, "--image"),
    }
    catalogue = read_catalogue(source, id, None if unlabelled else genres, separator)
    for embedding in vectors.values():
        check_matrix(embedding, len(catalogue.ids), table)
    plan = make_plan(catalogue, shares, seed, split_by, unlabelled, table)
    origin = provenance("import", table, catalogue, plan, seed, split_by)
    without_text = write_file("import", output, source, id, catalogue, plan, vectors, origin)
    return describe(output, catalogue, plan, vectors, without_text)


def write_file(
    command: str,
    output: Path,
    table: Table,
    id: str,
    catalogue: Catalogue,
    plan: Plan,
    vectors: Mapping[str, Embedding],
    origin: Mapping[str, object],
) -> int:
    """The file, whole and read back, or none; returns the number of movies without text."""
    small = ids_and_labels(catalogue, plan)
    shapes = {name: (values.shape, values.dtype.str) for name, values in small.items()}
    shapes |= {name: ((len(catalogue.ids), item.width), "<f4") for name, item in vectors.items()}
    with growing(output) as path:
        columns = allocate_movies(path, shapes, plan.genre_names, plan.splits)
        with path.open("r+b") as file:
            for name, values in small.items():
                file.seek(columns[name].offset)
                file.write(values.view(np.uint8).data)
            without_text = write_vectors(
                command, file, table, id, catalogue, plan, vectors, columns
            )
        read_back(path, labelled=bool(plan.splits))
        write_provenance(path, origin)
    return without_text


def check_matrix(embedding: Embedding, movies: int, table: Path) -> None:
    if embedding.rows not in (None, movies):
        raise PmmoError(
            f"{embedding.labels}: has {embedding.rows:,} rows, the table {table} has {movies:,}. "
            "Give one row per movie, in the table's order."
        )


def ids_and_labels(catalogue: Catalogue, plan: Plan) -> dict[str, np.ndarray]:
    """The two small columns, in the file's order; ids alone where the movies are unlabelled."""
    given = np.array(catalogue.ids, "S")
    ids = np.empty_like(given)
    ids[plan.place] = given
    if not plan.genre_names:
        return {"imdb_ids": ids}
    position = {name: k for k, name in enumerate(plan.genre_names)}
    labels = np.zeros((len(ids), len(position)), "<i4")  # (N, G)
    for place, names in zip(plan.place, catalogue.genres, strict=True):
        labels[place, [position[name] for name in names]] = 1
    return {"imdb_ids": ids, "genres": labels}


def write_vectors(
    command: str,
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
    with Progress(command, total) as progress:
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


def provenance(
    command: str,
    table: Path,
    catalogue: Catalogue,
    plan: Plan,
    seed: int,
    split_by: str | None,
) -> Provenance:
    note = f"Made from a table by `python -m pmmo {command}`"
    if plan.splits and catalogue.splits is not None:
        note += ", split by its column"
    elif plan.splits:
        note += f", split {'at random' if split_by == 'random' else 'by genres'}, seed {seed}"
    return {
        "kind": "file",
        "source": table.name,
        "rows": len(catalogue.ids),
        "sha256": {},
        "pinned": False,
        "note": f"{note}.",
    }
