"""Parquet in a child process: all types that people's programs write, and files made to do harm."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tracemalloc
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmmo.core.errors import PmmoError
from pmmo.own_movies import parquet
from pmmo.own_movies.catalogue import read_catalogue
from pmmo.own_movies.embeddings import find_embedding
from pmmo.own_movies.tables import open_table

ROOT = Path(__file__).resolve().parents[2]
VECTORS = np.array([[1, 2, 3], [0.5, -4, 8]], "<f4")


@pytest.fixture(autouse=True)
def _nothing_stays_behind():
    """No child, no pipe."""
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    yield
    assert not multiprocessing.active_children()
    assert len(os.listdir("/dev/fd")) <= before  # noqa: PTH208


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def refuse(row: int, column: str, what: str) -> PmmoError:
    return PmmoError(f"row {row}, column {column}: {what}")


def values_of(path: Path) -> np.ndarray:
    table = open_table(path)
    embedding = find_embedding(table, "text", "--text")
    pieces = table.pieces(embedding.columns)
    return np.concatenate([embedding.read(piece, 0, refuse) for piece in pieces])


def tensors(shape: tuple[int, ...]) -> pa.Array:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 3)
    kind = pa.fixed_shape_tensor(pa.float32(), shape)
    return pa.ExtensionArray.from_storage(kind, flat)


FORMS = {
    "lists": pa.array(VECTORS.tolist()),
    "lists of half": pa.array(VECTORS.astype("<f2").tolist(), pa.list_(pa.float16())),
    "large lists": pa.array(VECTORS.tolist(), pa.large_list(pa.float64())),
    "lists of one length": pa.array(VECTORS.tolist(), pa.list_(pa.float32(), 3)),
    "lists of one list": pa.array([[row] for row in VECTORS.tolist()]),
    "lists of one of one": pa.array([[[row]] for row in VECTORS.tolist()]),
    "one list of one length": pa.array(
        [[row] for row in VECTORS.tolist()], pa.list_(pa.list_(pa.float32(), 3), 1)
    ),
    "tensors": tensors((3,)),
    "tensors of one row": tensors((1, 3)),
    "text": pa.array([str(row) for row in VECTORS.tolist()]),
    "text in categories": pa.array([str(r) for r in VECTORS.tolist()]).dictionary_encode(),
    "large text": pa.array([str(row) for row in VECTORS.tolist()], pa.large_string()),
    "decimals": pa.array([[Decimal(f"{x:.2f}") for x in r] for r in VECTORS.tolist()]),
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_of_every_type_are_read(tmp_path, form):
    np.testing.assert_array_equal(
        values_of(write(tmp_path / "t.parquet", text=FORMS[form])), VECTORS
    )


def test_columns_of_numbers_of_several_types(tmp_path):
    columns = {
        "text_0": pa.array([1, None], pa.int8()),
        "text_1": pa.array(["2", " -4 "]),
        "text_2": pa.array([Decimal("3.0"), Decimal("8.0")]),
    }
    expected = VECTORS.copy()
    expected[1, 0] = np.nan
    np.testing.assert_array_equal(values_of(write(tmp_path / "t.parquet", **columns)), expected)


def test_an_empty_cell_among_nested_lists_stays_in_its_row(tmp_path):
    cells = [None, [[1.0, 2.0]], [], [None], [[3.0, 4.0]]]
    found = values_of(write(tmp_path / "t.parquet", text=pa.array(cells)))
    assert np.isnan(found[[0, 2, 3]]).all()
    assert found[[1, 4]].tolist() == [[1, 2], [3, 4]]
    two = pa.array([[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]])
    with pytest.raises(PmmoError, match="row 1, column text: 2 rows of numbers; expected one"):
        values_of(write(tmp_path / "t.parquet", text=two))


def bomb(path: Path, kind: str) -> Path:
    """A small file of one movie that unpacks to 60 megabytes and more."""
    if kind == "text":
        column = pa.array(["0" * (120 << 20)])
    else:
        zeros = pa.array(np.zeros(15 << 20, "<f4"))
        column = pa.ListArray.from_arrays([0, len(zeros)], zeros)
    pq.write_table(pa.table({"text": column}), path, compression="zstd", use_dictionary=False)
    return path


PEAK = """
import re, sys
from pathlib import Path
from pmmo.core.errors import PmmoError
from pmmo.own_movies.tables import open_table
try:
    for piece in open_table(Path(sys.argv[1])).pieces(["text"]):
        pass
except PmmoError as error:
    print(error)
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
@pytest.mark.parametrize("kind", ["text", "list"])
def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path, kind):
    path = bomb(tmp_path / "t.parquet", kind)
    assert path.stat().st_size < 1e6
    code = PEAK.replace("try:", "import pmmo.own_movies.parquet as p; p.MEMORY = 24 << 20\ntry:")
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        cwd=ROOT,
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"},  # takes no addresses in advance
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said, peak = done.stdout.splitlines()
    assert f"{path}: cannot be read as a table (it unpacks to more than the memory" in said
    assert int(peak) * 1024 < 250e6


def test_columns_whose_name_has_a_dot(tmp_path):
    path = write(tmp_path / "t.parquet", **{"a.b": [1, 2], "a": [3, 4]})
    pieces = list(open_table(path).pieces(["a", "a.b"]))
    assert [piece.to_pydict() for piece in pieces] == [{"a": [3, 4], "a.b": [1, 2]}]


def test_the_same_name_twice_is_refused(tmp_path):
    pq.write_table(pa.table([[1], [2]], names=["id", "id"]), tmp_path / "t.parquet")
    with pytest.raises(PmmoError, match=r"t.parquet: two columns are called 'id'"):
        open_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("keep", [0, 4, 40, 0.5, -1])
def test_a_damaged_file_is_refused(tmp_path, keep):
    path = write(tmp_path / "t.parquet", text=list(range(1000)))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
    with pytest.raises(PmmoError, match=r"t.parquet: cannot be read as a table"):
        list(open_table(path).pieces(["text"]))


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SEGV")]
)
def test_a_child_that_dies_gives_no_short_table(tmp_path, monkeypatch, number, words):
    path = write(tmp_path / "t.parquet", text=list(range(5000)))
    table = open_table(path)
    monkeypatch.setattr(parquet, "limits", lambda *_: (os.kill(os.getpid(), number), 1))
    with pytest.raises(PmmoError, match=words):
        list(table.pieces(["text"]))


def test_a_reader_that_stops_early_leaves_nothing(tmp_path):
    path = write(tmp_path / "t.parquet", text=list(range(500_000)))
    pieces = open_table(path).pieces(["text"])
    assert next(pieces).num_rows <= parquet.ROWS
    pieces.close()


def test_many_columns_are_read_in_linear_time(tmp_path):
    """20,000 columns, by the number of steps that find them and not by the clock."""
    names = [f"text_{number}" for number in range(20_000)]
    path = tmp_path / "t.csv"
    row = ",".join(["1"] * len(names))
    path.write_text(",".join(names) + f"\n{row}\n{row}\n")
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        found = values_of(path)
    finally:
        sys.setprofile(None)
    assert found.shape == (2, 20_000)
    assert steps < 60 * len(names)


@pytest.mark.parametrize("nested", [False, True])
def test_the_width_of_a_vector_is_found_in_little_memory(tmp_path, nested):
    """A small file may hold a vector of a hundred million zeros: 4 GB as numbers of Python."""
    zeros = pa.array(np.zeros(1 << 20, "<f4"))
    column = pa.ListArray.from_arrays([0, 0, len(zeros)], zeros)
    if nested:
        column = pa.ListArray.from_arrays([0, 0, 2], column)
    table = open_table(write(tmp_path / "t.parquet", text=column))
    tracemalloc.start()
    try:
        assert find_embedding(table, "text", "--text").width == 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_cells_that_unpack_to_far_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pmmo.own_movies.catalogue.PIECE", 1000)
    monkeypatch.setattr("pmmo.own_movies.embeddings.LONGEST", 1000)
    numbers = ["0 " * 999, "1"]
    path = write(tmp_path / "t.parquet", id=["a", "b"], genres=[["x"] * 999, []], text=numbers)
    with pytest.raises(PmmoError, match=r"ids and genres of 2 rows take .* bytes"):
        read_catalogue(open_table(path), "id", "genres", "|")
    with pytest.raises(
        PmmoError, match=r"row 1, column 'text': .* is longer than 1,000 characters"
    ):
        find_embedding(open_table(path), "text", "--text")
