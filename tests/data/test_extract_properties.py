"""Mutated files are refused in words, or read exactly as h5py reads them.

PMMO_EXAMPLES=2000 runs more of them.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmmo.core.errors import PmmoError
from pmmo.data import extract as columns
from pmmo.data.extract import extract
from pmmo.hdf5.layout import COLUMNS
from tests.movie_files import ROWS, arrays, column, names, replaced, splits, value, write_good

EXAMPLES = int(os.environ.get("PMMO_EXAMPLES", "10"))
STEADY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PMMO_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
READER = """
import hashlib, json, sys
import h5py, numpy as np
for line in sys.stdin:
    with h5py.File(line.strip()) as file:
        text = file["features"][()]
        text[np.isnan(text).all(axis=1)] = 0
        found = {
            "text": hashlib.sha256(text.astype("<f4").tobytes()).hexdigest(),
            "image": hashlib.sha256(file["vgg_features"][()].astype("<f4").tobytes()).hexdigest(),
            "genres": hashlib.sha256(file["genres"][()].astype("u1").tobytes()).hexdigest(),
            "ids": [item.decode() for item in file["imdb_ids"][()].tolist()],
        }
    print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _small_pieces():
    """These files are small: without this, each column would be one piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BUFFER", 200)
        yield


@pytest.fixture(scope="module")
def h5py_reads():
    """What h5py itself finds in a file: in another process, which a file may crash."""
    reader = None

    def read(path: Path) -> dict:
        nonlocal reader
        if reader is None or reader.poll() is not None:
            command = [sys.executable, "-c", READER]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            reader = subprocess.Popen(command, **pipes)
        reader.stdin.write(f"{path}\n")
        reader.stdin.flush()
        return json.loads(reader.stdout.readline())

    yield read
    if reader is not None:
        reader.stdin.close()
        reader.wait()
        reader.stdout.close()


def as_h5py_or_refused(path: Path, h5py_reads) -> bool:
    """Extract `path` and compare; whether it was accepted."""
    folder = path.parent / "tensors"
    try:
        extract(path, folder, nan_text="zeros", memory_limit_gb=0.1)
    except PmmoError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) < 1000
        assert not folder.exists()
        return False
    expected = h5py_reads(path)
    for key in ("text", "image", "genres"):
        data = (folder / f"{key}.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        assert hashlib.sha256(data[start:]).hexdigest() == expected[key], key
    catalogue = json.loads((folder / "movies.json").read_text())
    assert catalogue["ids"] == expected["ids"]
    covered = sorted(catalogue["splits"].values())
    assert [covered[0][0], covered[-1][1]] == [0, len(expected["ids"])]
    return True


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[bytes, list[int]]:
    """A good file, and the positions of its bytes that are not values."""
    path = write_good(tmp_path_factory.mktemp("good") / "movies.hdf5", provenance={"kind": "file"})
    data = path.read_bytes()
    values = set()
    with h5py.File(path) as file:
        for name in COLUMNS:
            start = file[name].id.get_offset()
            values |= set(range(start, start + file[name].nbytes))
    meaning = [place for place in range(len(data)) if place not in values]
    # holes of zeros are rarely read: most mutations should hit something
    return data, [place for place in meaning if any(data[max(0, place - 2) : place + 3])]


@STEADY
@given(data=st.data())
def test_bytes(good, h5py_reads, data):
    content, places = good
    mutated = bytearray(content)
    byte = st.one_of(st.sampled_from([0, 1, 2, 127, 128, 255]), st.integers(0, 255))
    changes = st.lists(st.tuples(st.sampled_from(places), byte), min_size=1, max_size=4)
    for place, new in data.draw(changes):
        mutated[place] = new
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movies.hdf5"
        path.write_bytes(mutated[:length])
        as_h5py_or_refused(path, h5py_reads)


TYPES = ["<f4", "<f8", "<f2", ">f4", "<i4", "<i8", "<u4", "i1", "?", "S7", "<c8"]
STORAGE = [{}, {"chunks": True}, {"compression": "gzip"}, {"maxshape": True}, {"shuffle": True}]


@st.composite
def stored_otherwise(draw):
    """A column in another type, shape or storage."""
    name, dtype = draw(st.sampled_from(list(COLUMNS))), draw(st.sampled_from(TYPES))
    shape = draw(
        st.one_of(
            st.just(None), st.lists(st.sampled_from([0, 1, 3, 59, 60, 61]), max_size=3).map(tuple)
        )
    )
    storage = draw(st.sampled_from(STORAGE))

    def change(path: Path) -> None:
        values = column(path, name)
        if shape is not None:
            values = np.zeros(shape, values.dtype)
        options = {"data": values.astype(dtype), **storage}
        if options["data"].ndim == 0 or 0 in options["data"].shape:
            options = {"data": options["data"]}
        if "maxshape" in options:
            options["maxshape"] = (None,) * values.ndim
        replaced(name, **options)(path)

    return change


numbers = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 3.4e38, 1e-45, 2, -1, 0, 1])
CHANGES = st.one_of(
    stored_otherwise(),
    st.builds(value, st.just("features"), st.integers(0, ROWS - 1), numbers),
    st.builds(
        value,
        st.just("vgg_features"),
        st.tuples(st.integers(0, ROWS - 1), st.integers(0, 15)),
        numbers,
    ),
    st.builds(
        value,
        st.just("genres"),
        st.tuples(st.integers(0, ROWS - 1), st.integers(0, 2)),
        st.integers(-(2**31), 2**31 - 1),
    ),
    st.builds(value, st.just("imdb_ids"), st.integers(0, ROWS - 1), st.binary(max_size=8)),
    st.builds(
        splits,
        st.dictionaries(
            st.sampled_from(["train", "dev", "test", "x"]),
            st.tuples(
                st.sampled_from([0, 0, -1, 36, 42, 60]), st.sampled_from([36, 42, 60, 60, 61])
            ),
            min_size=1,
        ),
    ),
    st.builds(names, st.lists(st.text(max_size=8), max_size=4).map(json.dumps)),
)


@STEADY
@given(change=CHANGES)
def test_structure(h5py_reads, change):
    with tempfile.TemporaryDirectory() as folder:
        path = write_good(Path(folder) / "movies.hdf5")
        try:
            change(path)
        except (TypeError, ValueError, OSError):  # a change that h5py itself cannot write
            return
        as_h5py_or_refused(path, h5py_reads)


@STEADY
@given(
    rows=st.integers(3, 40),
    widths=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    cuts=st.data(),
)
def test_good_files_are_accepted(h5py_reads, rows, widths, cuts):
    first = cuts.draw(st.integers(1, rows - 2))
    second = cuts.draw(st.integers(first + 1, rows - 1))
    bounds = {"train": (0, first), "dev": (first, second), "test": (second, rows)}
    with tempfile.TemporaryDirectory() as folder:
        values = arrays(rows, *widths)
        values["genres"][:, 0] = 1
        path = write_good(Path(folder) / "movies.hdf5", **values, splits=bounds)
        assert as_h5py_or_refused(path, h5py_reads)
