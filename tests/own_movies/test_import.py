"""A user's table becomes a file in the published layout, value for value, or is refused by row."""

import csv
import gzip
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from unicodedata import normalize

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmmo.core.errors import PmmoError
from pmmo.core.names import SPLITS
from pmmo.data.extract import extract
from pmmo.data.movies import load_movies
from pmmo.data.value_checks import LARGEST
from pmmo.hdf5.layout import COLUMNS
from pmmo.own_movies.features import open_features
from pmmo.own_movies.genre_cells import NO_VALUE
from pmmo.own_movies.import_table import import_table
from pmmo.own_movies.summary import source
from tests.clone import ROOT, pmmo

TEXT, IMAGE = 3, 4
IDS = ("tt1", "tt2", "tt3", "tt4", "tt5", "tt6", "tt7")
GENRES = (["Drama"], ["Comedy", "Drama"], ["War"], [], ["Drama", "Film-Noir"], ["Comedy"], [])
SPLIT = ("test", "train", "dev", "train", "train", "test", "dev")


def vectors(rows: int = len(IDS), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        random.normal(size=(rows, TEXT)).astype("<f4"),
        random.random((rows, IMAGE)).astype("<f4"),
    )


def write_csv(path: Path, columns: dict[str, list]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_parquet(path: Path, columns: dict) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def numbered(name: str, values: np.ndarray) -> dict[str, list]:
    return {f"{name}_{j}": values[:, j].astype(str).tolist() for j in range(values.shape[1])}


def paths(name: str, values: np.ndarray, folder: Path) -> dict[str, list]:
    """Each row in a .npy file of its own, beside the table."""
    (folder / name).mkdir()
    for row, vector in enumerate(values):
        np.save(folder / name / f"{row}.npy", vector)
    return {name: [f"{name}/{row}.npy" for row in range(len(values))]}


def lists(values: np.ndarray) -> pa.Array:
    return pa.array(values.tolist(), pa.list_(pa.float64()))


def in_csv(folder: Path, ids, genres, split, text, image) -> tuple[Path, dict]:
    columns = {"id": ids, "genres": ["|".join(g) for g in genres], "split": split}
    columns |= numbered("text", text) | numbered("image", image)
    return write_csv(folder / "t.csv", columns), {}


def in_csv_as_json(folder: Path, ids, genres, split, text, image) -> tuple[Path, dict]:
    """Lists as pandas writes them to CSV; other column names."""
    columns = {"movie": ids, "kinds": [json.dumps(g) for g in genres], "split": split}
    columns |= {name: [str(v) for v in x.tolist()] for name, x in (("t", text), ("i", image))}
    options = {"id": "movie", "genres": "kinds", "text": "t", "image": "i"}
    return write_csv(folder / "t.csv", columns), options


def in_csv_with_files(folder: Path, ids, genres, split, text, image) -> tuple[Path, dict]:
    np.save(folder / "all.npy", image.astype("f8"))
    columns = {"id": ids, "genres": [", ".join(g) for g in genres], "split": split}
    columns |= paths("text", text, folder)
    options = {"image": str(folder / "all.npy"), "separator": ","}
    return write_csv(folder / "t.csv", columns), options


def in_parquet(folder: Path, ids, genres, split, text, image) -> tuple[Path, dict]:
    flat = pa.array(image.ravel())
    columns = {"id": ids, "genres": genres, "split": split, "text": lists(text)}
    columns["image"] = pa.FixedSizeListArray.from_arrays(flat, image.shape[1])
    return write_parquet(folder / "t.parquet", columns), {}


def in_parquet_of_pandas(folder: Path, ids, genres, split, text, image) -> tuple[Path, dict]:
    """Categories and columns of numbers."""
    labels = pa.array(["|".join(g) for g in genres]).dictionary_encode()
    columns = {"id": ids, "genres": labels, "split": pa.array(split).dictionary_encode()}
    for name, values in (("text", text), ("image", image)):
        columns |= {f"{name}_{j}": values[:, j] for j in range(values.shape[1])}
    return write_parquet(folder / "t.parquet", columns), {}


FORMS = (in_csv, in_csv_as_json, in_csv_with_files, in_parquet, in_parquet_of_pandas)


def expected_order(split) -> list[int]:
    return sorted(range(len(split)), key=lambda row: SPLITS.index(split[row]))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_table_gives_the_same_movies(tmp_path, form):
    text, image = vectors()
    table, options = form(tmp_path, list(IDS), list(GENRES), list(SPLIT), text, image)
    import_table(table, tmp_path / "own.hdf5", **options)
    extract(tmp_path / "own.hdf5", tmp_path / "tensors", nan_text="error", memory_limit_gb=1)
    movies, order = load_movies(tmp_path / "tensors"), expected_order(SPLIT)
    assert movies.ids == ("tt2", "tt4", "tt5", "tt3", "tt7", "tt1", "tt6")
    assert movies.splits == {"train": slice(0, 3), "dev": slice(3, 5), "test": slice(5, 7)}
    assert movies.genre_names == ("Drama", "Comedy", "Film-Noir", "War")
    labels = [[int(name in GENRES[row]) for name in movies.genre_names] for row in order]
    assert movies.genres.tolist() == labels
    np.testing.assert_array_equal(movies.text, text[order])
    np.testing.assert_array_equal(movies.image, image[order])
    assert movies.unlabelled == 2
    assert movies.provenance["source"] == table.name
    assert not list(tmp_path.glob("*.tmp"))


NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N")),
    min_size=1,
    max_size=12,
).filter(lambda name: name == normalize("NFC", name) and name.lower() not in NO_VALUE)
FINITE = st.floats(-float(LARGEST), float(LARGEST), width=32)


@st.composite
def tables(draw):
    """Movies of any number, widths and genres, in any order of splits, some without text."""
    rows = draw(st.integers(6, 30))
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique_by=str.casefold))
    genres = draw(st.lists(st.sets(st.sampled_from(names)), min_size=rows, max_size=rows))
    split = draw(
        st.permutations([*SPLITS * 2, *draw(st.lists(st.sampled_from(SPLITS), min_size=rows - 6,
                                                max_size=rows - 6))])
    )  # fmt: skip
    for name in SPLITS:
        genres[split.index(name)].add(names[0])
    ids = [str(value) for value in range(1, rows + 1)]
    seed, widths = draw(st.integers(0, 1000)), draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    random = np.random.default_rng(seed)
    text, image = (random.normal(size=(rows, w)).astype("<f4") for w in widths)
    image[0, 0], image[-1, -1] = draw(st.tuples(FINITE, FINITE))
    return ids, [sorted(g) for g in genres], split, text, image


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=tables(), form=st.sampled_from(FORMS))
def test_any_table_comes_out_bit_for_bit(drawn, form):
    ids, genres, split, text, image = drawn
    if form is in_csv_with_files:  # its separator
        genres = [[name.replace(",", ";") for name in names] for names in genres]
    order = expected_order(split)
    with tempfile.TemporaryDirectory() as folder:
        table, options = form(Path(folder), *drawn[:1], genres, *drawn[2:])
        output = Path(folder) / "own.hdf5"
        import_table(table, output, **options)
        with h5py.File(output) as file:
            names = json.loads(file["genres"].attrs["target_names"])
            assert file["features"][()].tobytes() == text[order].tobytes()
            assert file["vgg_features"][()].tobytes() == image[order].tobytes()
            assert [i.decode() for i in file["imdb_ids"][()]] == [ids[row] for row in order]
            found = [{names[k] for k in np.flatnonzero(row)} for row in file["genres"][()]]
        assert found == [set(genres[row]) for row in order]
        counts = [sum(name in row for row in found) for name in names]
        assert counts == sorted(counts, reverse=True)
        assert min(counts) > 0


def plain(tmp_path: Path, rows: int = 40, **changes: list | None) -> Path:
    """A CSV table of random movies without splits; `changes` replace or (None) drop columns."""
    text, image = vectors(rows)
    columns = {"id": [f"m{row}" for row in range(rows)]}
    columns["genres"] = [("Drama", "Drama|War")[row % 2] for row in range(rows)]
    columns |= numbered("text", text) | numbered("image", image) | changes
    return write_csv(tmp_path / "t.csv", {k: v for k, v in columns.items() if v is not None})


def ids_of(path: Path) -> list[str]:
    with h5py.File(path) as file:
        return [item.decode() for item in file["imdb_ids"][()]]


@pytest.mark.parametrize("split_by", [None, "random"])
def test_a_drawn_split_has_the_shares_and_follows_the_seed(tmp_path, split_by):
    table = plain(tmp_path)
    found = []
    for name, options in (
        ("a", {}),
        ("b", {}),
        ("c", {"seed": 1}),
        ("d", {"shares": (0.5, 0.25, 0.25)}),
    ):
        import_table(table, tmp_path / name, split_by=split_by, **options)
        with h5py.File(tmp_path / name) as file:
            note = json.loads(file.attrs["provenance"])["note"]
            assert ("at random" if split_by else "by genres") in note
            war = file["genres"][:, 1]  # of every second movie
            rows = file.attrs["split"]
            found.append({row["split"].decode(): (row["start"], row["stop"]) for row in rows})
            if not split_by:
                assert {war[start:stop].mean() for start, stop in found[-1].values()} == {0.5}
    assert found[0] == {"train": (0, 24), "dev": (24, 28), "test": (28, 40)}
    assert found[3] == {"train": (0, 20), "dev": (20, 30), "test": (30, 40)}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert ids_of(tmp_path / "a") != ids_of(tmp_path / "c")
    assert sorted(ids_of(tmp_path / "a")) == sorted(f"m{row}" for row in range(40))


def test_ids_keep_their_zeros_and_whole_numbers_become_ids(tmp_path):
    table = plain(tmp_path, 10, id=[f"00{row}" for row in range(10)])
    import_table(table, tmp_path / "x", unlabelled=True)
    assert ids_of(tmp_path / "x")[0] == "000"
    text, image = vectors()
    columns = {"id": pa.array(range(7)), "text": lists(text), "image": lists(image)}
    import_table(write_parquet(tmp_path / "t.parquet", columns), tmp_path / "y", unlabelled=True)
    assert ids_of(tmp_path / "y") == list("0123456")


def test_cells_with_commas_quotes_and_line_breaks(tmp_path):
    plots = ['He said "no",\nand left.', "", "a,b", "x|y", "", "\n"]
    genres = ['["Drama, sad"]', "a b", ' "q" | a b ', "é", "", ""]
    split = ["train", "dev", "test", "train", "dev", "test"]
    table = plain(tmp_path, 6, plot=plots, genres=genres, split=split)
    import_table(table, tmp_path / "x")
    with h5py.File(tmp_path / "x") as file:
        names = json.loads(file["genres"].attrs["target_names"])
    assert names == ["a b", '"q"', "Drama, sad", "é"]


def test_a_movie_without_text_is_kept_as_the_published_file_has_it(tmp_path):
    text = vectors(40)[0].astype(str)
    text[7] = ""
    table = plain(tmp_path, **{f"text_{j}": text[:, j].tolist() for j in range(TEXT)})
    said = import_table(table, tmp_path / "x.hdf5")
    assert "without text: 1" in said
    extract(tmp_path / "x.hdf5", tmp_path / "tensors", nan_text="zeros", memory_limit_gb=1)
    assert load_movies(tmp_path / "tensors").nan_text["ids"] == ["m7"]


def test_unlabelled_movies_keep_their_order_and_serve_prediction(tmp_path):
    table = plain(tmp_path, genres=None)
    said = import_table(table, tmp_path / "new.hdf5", unlabelled=True)
    assert said.startswith(f"{tmp_path / 'new.hdf5'}: 40 movies (unlabelled)")
    with open_features(tmp_path / "new.hdf5") as features:
        (batch,) = features.batches(100)
        assert batch.ids == [f"m{row}" for row in range(40)]
        np.testing.assert_array_equal(batch.text, vectors(40)[0])
    with h5py.File(tmp_path / "new.hdf5") as file:
        assert set(file) == {"imdb_ids", "features", "vgg_features"}


def test_genres_that_cannot_be_learned_are_named(tmp_path):
    split = ["train", "train", "dev", "test", "dev", "test"]
    table = plain(tmp_path, 6, genres=["a", "a", "b", "a|c", "", "a"], split=split)
    assert "no movie of train has: b, c" in import_table(table, tmp_path / "x")


def cell(column: str, row: int, content: object, rows: int = 40):
    """The plain table with one cell changed."""

    def make(folder: Path) -> Path:
        with plain(folder, rows).open(newline="") as file:
            lines = list(csv.DictReader(file))
        lines[row - 1][column] = content
        return write_csv(folder / "t.csv", {k: [line[k] for line in lines] for k in lines[0]})

    return make


def columns(**changes):
    return lambda folder: plain(folder, **changes)


def raw(content: bytes, name: str = "t.csv"):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def parquet(**changes):
    def make(folder: Path) -> Path:
        text, image = vectors()
        usual = {"id": list(IDS), "genres": list(GENRES), "text": lists(text)}
        return write_parquet(folder / "t.parquet", usual | {"image": lists(image)} | changes)

    return make


def listed_in(change):
    """The image vectors as lists, changed."""
    values = vectors()[1].tolist()
    change(values)
    return parquet(image=pa.array(values, pa.list_(pa.float64())))


def matrix(values: np.ndarray):
    def make(folder: Path) -> Path:
        np.save(folder / "m.npy", values, allow_pickle=True)
        return plain(folder)

    return make


def files(harm):
    def make(folder: Path) -> Path:
        table = plain(folder, 7, **{f"text_{j}": None for j in range(TEXT)},
                      **paths("text", vectors()[0], folder))  # fmt: skip
        harm(folder / "text" / "3.npy")
        return table

    return make


def saved(values: object):
    return lambda path: np.save(path, values, allow_pickle=True)


def numbers_as(cell: str):
    """A column t whose second cell is no vector."""
    return columns(t=["[1, 2]", cell] + ["[1, 2]"] * 38)


HEADER = b"id,genres,text_0,image_0\n"
REFUSED = {
    "absent": (lambda folder: folder / "none.csv", {}, "none.csv read No such file"),
    "another form": (raw(b"", "t.xlsx"), {}, "t.xlsx .csv, .tsv .gz .parquet"),
    "an archive": (raw(b"PK", "t.csv.zip"), {}, "t.csv.zip unpack an archive"),
    "empty": (raw(b""), {}, "t.csv read as a table empty"),
    "a folder": (lambda folder: (folder / "t.csv").mkdir() or folder / "t.csv", {}, "regular"),
    "no rows": (raw(HEADER), {}, "t.csv no rows"),
    "not UTF-8": (raw(HEADER + b"a,Dr\xffma,1,1\n"), {}, "t.csv UTF-8 0xff line"),
    "Latin-1 header": (raw(b"id,genres,text_\xe9\n1,x,1\n"), {}, "t.csv UTF-8 0xe9"),
    "UTF-16 unmarked": (raw(HEADER.decode().encode("utf-16-le")), {}, "t.csv zero bytes UTF-8"),
    "half a character": (raw(HEADER + b"a,\xe5", "t.csv"), {}, "t.csv UTF-8 0xe5"),
    "short row": (raw(HEADER + b"a,Drama,1,1\nb,Drama,1\n"), {}, "row 2 3 cells, header 4"),
    "long row": (raw(HEADER + b"a,Drama,1,1,1\n"), {}, "row 1 5 cells, header 4"),
    "gzip cut": (raw(gzip.compress(HEADER * 9)[:-9], "t.csv.gz"), {}, "t.csv.gz read as a table"),
    "gzip damaged": (raw(b"\x1f\x8bx", "t.csv.gz"), {}, "t.csv.gz read as a table"),
    "no Parquet": (raw(b"PAR1", "t.parquet"), {}, "t.parquet read as a table"),
    "column twice": (raw(b"id,id,genres\n1,2,x\n"), {}, "two columns called 'id'"),
    "no id": (columns(id=None), {}, "no column 'id' --id 'text_0'"),
    "no genres": (columns(genres=None), {}, "no column 'genres' --genres --unlabelled"),
    "no text": (columns(), {"text": "plot"}, "neither 'plot' nor 'plot_0' --text"),
    "text both ways": (columns(text=["x"] * 40), {}, "both 'text' and 'text_0'"),
    "gap": (columns(text_1=None), {}, "number 1 is missing 'text_0' to 'text_2'"),
    "starts late": (columns(text_0=None, text_1=None), {}, "'text_2' start at 0 or 1"),
    "same number": (columns(text_01=["1"] * 40), {}, "'text_1' 'text_01' same number"),
    "empty id": (cell("id", 5, " "), {}, "t.csv, row 5, column 'id' empty"),
    "id twice": (cell("id", 5, "m0"), {}, "row 5 'm0' row 1 too"),
    "id not ASCII": (cell("id", 5, "é"), {}, "row 5 printable ASCII"),
    "long id": (cell("id", 5, "x" * 65), {}, "row 5 at most 64"),
    "id a fraction": (parquet(id=pa.array([0.5] * 7)), {}, "row 1, column 'id' 0.5 is no id"),
    "no number": (cell("text_1", 7, "1,5"), {}, "row 7 (id 'm6'), column 'text_1' '1,5' no number"),
    "part of a text": (cell("text_1", 7, ""), {}, "row 7 'm6' 'text_1' nan finite"),
    "infinite": (cell("image_2", 40, "inf"), {}, "row 40 'm39' 'image_2' inf finite"),
    "too large": (cell("image_2", 40, "1e39"), {}, "row 40 'image_2' inf squared"),
    "fill value": (cell("text_1", 7, "9.96921e36"), {}, "row 7 'text_1' 9.96921e+36 squared"),
    "NaN image": (cell("image_3", 2, "NaN"), {}, "row 2 'image_3' nan"),
    "genre empty": (cell("genres", 3, "Drama||War"), {}, "row 3 'm2' 'genres' empty"),
    "genre in two ways": (cell("genres", 3, "drama"), {}, "row 3 'drama' is 'Drama' in row 1"),
    "no genre at all": (columns(genres=[""] * 40), {}, "no movie has a genre"),
    "unknown split": (columns(split=["train"] * 39 + ["held"]), {}, "row 40 'm39' 'held' train"),
    "no dev": (
        columns(split=["train", "test"] * 20),
        {},
        "'split' 0 of the 40 movies is for dev",
    ),
    "two movies": (columns(rows=5), {}, "has 5 movies need 2 each --unlabelled"),
    "split twice": (columns(split=["train"] * 40), {"shares": (0.6, 0.2, 0.2)}, "'split' --split"),
    "split by twice": (columns(split=["train"] * 40), {"split_by": "random"}, "'split' --split-by"),
    "another length": (listed_in(lambda v: v[4].pop()), {}, "row 5 'tt5' 'image' 3 numbers 4"),
    "no vector": (listed_in(lambda v: v.__setitem__(4, None)), {}, "row 5 'tt5' no vector"),
    "no vectors": (parquet(image=pa.array([[]] * 7, pa.list_(pa.float32()))), {}, "empty in every"),
    "null in a list": (listed_in(lambda v: v[4].__setitem__(1, None)), {}, "row 5 number 1 is nan"),
    "list of texts": (parquet(image=[["a"]] * 7), {}, "'image' holds list<"),
    "numbered truths": (parquet(x_0=pa.array([True] * 7)), {"image": "x"}, "'x_0' holds bool"),
    "no JSON": (
        numbers_as("[1, x]"),
        {"text": "t"},
        "row 2 'm1' 't' '[1, x]' no list of numbers",
    ),
    "numbers left out": (numbers_as("[1. ... 2.]"), {"text": "t"}, "row 2 cut short '...'"),
    "a plot": (numbers_as("word " * 900), {"text": "t"}, "row 2 no list of numbers"),
    "a plot with a pause": (numbers_as("A man ... goes."), {"text": "t"}, "no list of numbers"),
    "JSON left out": (numbers_as("[1, ..., 2]"), {"text": "t"}, "row 2 cut short '...'"),
    "huge integer": (numbers_as(f"[1{'0' * 400}, 1]"), {"text": "t"}, "row 2 number 0 is inf"),
    "no label in a split": (
        columns(genres=["a"] * 38 + ["", "N/A"], split=["train", "val"] * 19 + ["test"] * 2),
        {},
        "no movie of test has a genre",
    ),
    "JSON of texts": (numbers_as('["1", "2"]'), {"text": "t"}, "row 2 no list of numbers"),
    "matrix too short": (matrix(np.ones((39, 2))), {"text": "m.npy"}, "m.npy 39 rows t.csv has 40"),
    "matrix of rank 1": (matrix(np.ones(40)), {"text": "m.npy"}, "m.npy shape (40,)"),
    "matrix of objects": (matrix(np.array([{}] * 40)), {"text": "m.npy"}, "m.npy read"),
    "no matrix": (columns(), {"text": "m.npy"}, "m.npy No such file"),
    "file absent": (
        files(Path.unlink),
        {},
        "row 4 (id 'm3'), column 'text' text/3.npy No such file",
    ),
    "file a pickle": (files(saved({"a": 1})), {}, "row 4 text/3.npy"),
    "file no file": (files(lambda path: path.write_text("x")), {}, "row 4 3.npy read"),
    "file of texts": (files(saved(np.array(["a"]))), {}, "row 4 3.npy no plain array of numbers"),
    "file of rank 2": (files(saved(np.ones((2, 3)))), {}, "row 4 (2, 3)"),
    "file too long": (files(saved(np.ones(4))), {}, "row 4 4 numbers have 3"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_table_is_refused_by_row(tmp_path, monkeypatch, kind):
    make, options, words = REFUSED[kind]
    monkeypatch.chdir(tmp_path)
    table = make(tmp_path)
    output = tmp_path / "own.hdf5"
    output.write_text("before")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(PmmoError) as caught:
        import_table(table, output, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert not [word for word in words.split() if word not in message], message
    assert output.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == before


def test_more_movies_or_genres_than_can_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pmmo.own_movies.catalogue.MOVIES", 39)
    with pytest.raises(PmmoError, match=r"t.csv: has more than 39 rows. Give it in parts"):
        import_table(plain(tmp_path), tmp_path / "x")
    monkeypatch.setattr("pmmo.own_movies.genre_cells.GENRES", 1)
    with pytest.raises(PmmoError, match=r"row 2 .*more than 1 genres. Is it the right one"):
        import_table(plain(tmp_path), tmp_path / "x")


def test_one_hot_columns_and_words_for_none(tmp_path):
    flags = {"Drama": [1, 0] * 20, "War": ["0"] * 20 + ["1"] * 20}
    said = import_table(plain(tmp_path, genres=None, **flags), tmp_path / "x", genres="Drama,War")
    assert "2 genres: Drama 20, War 20" in said
    genres = ["Drama", "(no genres listed)", r"\N", "Drama|War"] * 10
    said = import_table(plain(tmp_path, genres=genres), tmp_path / "x")
    assert "2 genres: Drama 20, War 10" in said
    assert "taken as no genre: (no genres listed) 10, \\N 10" in said


def test_semicolons_with_decimal_commas(tmp_path):
    table = plain(tmp_path)
    import_table(table, tmp_path / "x")
    table.write_text(table.read_text().replace(",", ";").replace(".", ","))
    import_table(table, tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == (tmp_path / "x").read_bytes()


def test_the_table_itself_is_not_overwritten(tmp_path):
    table = plain(tmp_path)
    with pytest.raises(PmmoError, match="is read by this command"):
        import_table(table, table)
    with pytest.raises(PmmoError, match="cannot be written"):
        import_table(table, table / "own.hdf5")


def test_the_command(tmp_path):
    plain(tmp_path, 10)
    table = (tmp_path, "import", "t.csv", "own.hdf5")
    done = pmmo(*table, "--split", "0.5,0.2,0.3", "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "own.hdf5: 10 movies (train 5, dev 2, test 3); text 3, image 4 wide",
        "2 genres: Drama 10, War 5",
        "Train on it with `dvc exp run -f -S data.source=own.hdf5 experiment`: without -f, DVC "
        "does not see that a file of a name it knows has other movies.",
    ]
    failed = pmmo(*table, "--text", "plot")
    assert failed.returncode == 1
    assert failed.stderr.startswith("import: t.csv: has neither a column 'plot'")
    assert "Traceback" not in failed.stderr
    wrong = pmmo(*table, "--split", "0.5,0.2")
    assert wrong.returncode == 2
    assert "'0.5,0.2' is not three shares above 0 that add up to 1" in wrong.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("| true", 0, ""),
        ("2>&1 | true", 0, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">/dev/full", 1, "import: is done, but its words cannot be printed (No space left"),
    ],
)
def test_closed_and_full_outputs_end_without_a_traceback(tmp_path, redirection, code, said):
    plain(tmp_path, 10)
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"{sys.executable} -m pmmo import t.csv own.hdf5"
    line = f"set -o pipefail; (sleep 0.2; exec {command}) {redirection}"  # the reader has gone
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert said in done.stderr
    assert len(ids_of(tmp_path / "own.hdf5")) == 10


def test_options_that_make_no_sense_are_refused(tmp_path):
    plain(tmp_path, 10)
    for option, words in (
        (("--separator", ""), "--separator is empty"),
        (("--seed", "9" * 5000), "is not a whole number from 0 up"),
    ):
        failed = pmmo(tmp_path, "import", "t.csv", "own.hdf5", *option)
        assert failed.returncode in (1, 2)
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr
    assert not (tmp_path / "own.hdf5").exists()


def test_large_tables_pass_in_pieces(tmp_path, monkeypatch):
    """Rows keep their place over the borders of pieces, in CSV and in Parquet."""
    monkeypatch.setattr("pmmo.own_movies.delimited.CELLS", 99)
    monkeypatch.setattr("pmmo.own_movies.parquet.ROWS", 7)
    rows = 500
    text, image = vectors(rows)
    ids = [f"m{row}" for row in range(rows)]
    split = np.random.default_rng(1).choice(SPLITS, rows).tolist()
    order = expected_order(split)
    for form in (in_csv, in_parquet):
        table, options = form(tmp_path, ids, [["a"]] * rows, split, text, image)
        import_table(table, tmp_path / "own.hdf5", **options)
        with h5py.File(tmp_path / "own.hdf5") as file:
            np.testing.assert_array_equal(file["features"][()], text[order])
            np.testing.assert_array_equal(file["vgg_features"][()], image[order])
            assert file["imdb_ids"][()].astype(str).tolist() == [ids[row] for row in order]


def test_real_movies_come_back_byte_for_byte(tmp_path):
    usual = ROOT.parent / "shared" / "data" / "movies_a.hdf5"
    real = Path(os.environ.get("PMMO_REAL_MOVIES", usual))
    if not real.exists():
        pytest.skip("needs real movies (PMMO_REAL_MOVIES)")
    with h5py.File(real) as file:
        names = json.loads(file["genres"].attrs["target_names"])
        columns = {"id": file["imdb_ids"][()].astype(str).tolist()}
        columns["genres"] = [[names[k] for k in np.flatnonzero(row)] for row in file["genres"][()]]
        split = np.empty(len(columns["id"]), object)
        for row in file.attrs["split"]:
            split[row["start"] : row["stop"]] = row["split"].decode()
        columns["split"] = split.tolist()
        for name, source in (("text", "features"), ("image", "vgg_features")):
            values = file[source][()]
            flat = pa.array(values.ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        import_table(write_parquet(tmp_path / "t.parquet", columns), tmp_path / "own.hdf5")
        with h5py.File(tmp_path / "own.hdf5") as own:
            for name in COLUMNS:
                assert own[name].dtype == file[name].dtype
                assert own[name][()].tobytes() == file[name][()].tobytes()
            assert own["genres"].attrs["target_names"] == file["genres"].attrs["target_names"]


@pytest.mark.parametrize(
    "name",
    [
        "data/own.hdf5",
        "/data/own movies, b=c (1).hdf5",
        "[x].hdf5",
        "a'b\"c\\.hdf5",
        "Ä?.hdf5",
        "1",
    ],
)
def test_the_command_that_is_printed_gives_dvc_the_path(name):
    """And so do the quotes that docs/data.md tells."""
    (override,) = shlex.split(source(Path(name)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text("data:\n  source: auto\n")
        apply_overrides(path, [override])
        assert yaml.safe_load(path.read_text())["data"]["source"] == name
