"""Extract: what it writes, and that it refuses every bad file by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pmmo.core.errors import PmmoError
from pmmo.data.extract import extract
from pmmo.data.movies import load_movies
from pmmo.data.value_checks import LARGEST
from pmmo.fetching.fetch import fetch
from pmmo.hdf5.layout import COLUMNS
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile
from pmmo.hdf5.writer import split_rows
from pmmo.own_movies.features import open_features
from tests.movie_files import (
    BAD,
    NAMES,
    SPLITS,
    arrays,
    file_attribute,
    user_block,
    value,
    write_bad,
    write_good,
)

ROOT = Path(__file__).resolve().parents[2]


def extracted(path: Path, nan_text: str = "zeros", memory_limit_gb: float = 1.0):
    extract(path, path.parent / "tensors", nan_text=nan_text, memory_limit_gb=memory_limit_gb)
    return load_movies(path.parent / "tensors")


def left_behind(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} - {"movies.hdf5", "secret.bin"}


def test_values_come_out_as_they_went_in(tmp_path):
    values = arrays()
    values["genres"][11] = 0
    movies = extracted(write_good(tmp_path / "movies.hdf5", **values, provenance={"kind": "file"}))
    np.testing.assert_array_equal(movies.text, values["text"])
    np.testing.assert_array_equal(movies.image, values["image"])
    np.testing.assert_array_equal(movies.genres, values["genres"])
    assert movies.ids == tuple(name.decode() for name in values["ids"])
    assert movies.genre_names == NAMES
    assert movies.splits == {name: slice(*bounds) for name, bounds in SPLITS.items()}
    assert movies.provenance == {"kind": "file"}
    assert movies.nan_text == {"policy": "zeros", "count": 0, "ids": []}
    assert movies.unlabelled == (values["genres"].sum(axis=1) == 0).sum()
    assert movies.split("dev")[0].shape == (6, 8)
    assert left_behind(tmp_path) == {"tensors"}


def test_a_column_beyond_the_end_is_refused_whatever_hdf5_says(tmp_path):
    """This HDF5 refuses to open such a dataset; the check does not rely on it."""
    with LocalFile(write_good(tmp_path / "movies.hdf5")) as file:
        facts = inspect(file)
        with pytest.raises(PmmoError, match=r"ends at byte [\d,]+, the file at 4,000: it is inc"):
            check_layout(facts, file.name, 4000, 1e9)


@pytest.mark.parametrize("kind", BAD)
def test_bad_file_is_refused_by_name(tmp_path, kind):
    path = write_bad(tmp_path / "movies.hdf5", kind)
    with pytest.raises(PmmoError) as caught:
        extracted(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 700
    missing = [word for word in BAD[kind][1].split() if word not in message]
    assert not missing, message
    assert not left_behind(tmp_path)


def test_nan_text_is_counted_named_and_replaced(tmp_path):
    text = arrays()["text"]
    text[[3, 59]] = np.nan
    path = write_good(tmp_path / "movies.hdf5", text=text)
    movies = extracted(path)
    assert movies.nan_text == {"policy": "zeros", "count": 2, "ids": ["0000003", "0000059"]}
    np.testing.assert_array_equal(movies.text, np.nan_to_num(text))
    with pytest.raises(PmmoError, match=r"'features', row 3 \(id '0000003'\).*NaN"):
        extracted(path, nan_text="error")
    with pytest.raises(PmmoError, match=r"data.nan_text is 'drop'; expected one of zeros, error"):
        extracted(path, nan_text="drop")


def test_values_pass_that_float32_can_square(tmp_path):
    """Up to the largest, though the sum of their squares overflows."""
    image = arrays()["image"]
    image[5:9] = LARGEST
    image[9] = -LARGEST
    movies = extracted(write_good(tmp_path / "movies.hdf5", image=image))
    np.testing.assert_array_equal(movies.image, image)


@pytest.mark.parametrize("size", [512, 1024, 1 << 14, 1 << 20])
def test_a_user_block_is_passed_over(tmp_path, size):
    path = write_good(tmp_path / "movies.hdf5")
    user_block(path, size)
    movies, values = extracted(path), arrays()
    np.testing.assert_array_equal(movies.image, values["image"])
    np.testing.assert_array_equal(movies.text, values["text"])
    assert movies.ids == tuple(name.decode() for name in values["ids"])
    with open_features(path) as features:
        (batch,) = features.batches(100)
        np.testing.assert_array_equal(batch.text, values["text"])


def test_a_user_block_as_hdf5_writes_it(tmp_path):
    write_good(tmp_path / "plain.hdf5")
    with (
        h5py.File(tmp_path / "plain.hdf5") as plain,
        h5py.File(tmp_path / "movies.hdf5", "w", userblock_size=2048) as file,
    ):
        for name in COLUMNS:
            plain.copy(name, file)
        file.attrs["split"] = plain.attrs["split"]
    movies = extracted(tmp_path / "movies.hdf5")
    np.testing.assert_array_equal(movies.image, arrays()["image"])
    np.testing.assert_array_equal(movies.genres, arrays()["genres"])


def test_a_split_without_any_label_is_refused(tmp_path):
    genres = arrays()["genres"]
    genres[42:59], genres[59] = 0, 1
    extracted(write_good(tmp_path / "movies.hdf5", genres=genres))
    genres[59] = 0
    with pytest.raises(PmmoError, match=r"movies.hdf5: no movie of split 'test' has a genre"):
        extracted(write_good(tmp_path / "movies.hdf5", genres=genres))


@pytest.mark.parametrize("names", ["S12", object])
def test_split_of_newer_writers(tmp_path, names):
    """Fields of shape (1,), names as text: newer numpy and h5py write them so."""
    text = h5py.string_dtype() if names is object else "S12"
    table = np.zeros(
        12, [("split", text), ("source", text), ("start", "<i8", (1,)), ("stop", "<i8", (1,))]
    )
    for row, old in zip(table, split_rows(list(COLUMNS), SPLITS), strict=True):
        row["split"], row["source"] = old["split"], old["source"]
        row["start"], row["stop"] = old["start"], old["stop"]
    path = write_good(tmp_path / "movies.hdf5")
    file_attribute("split", table)(path)
    assert extracted(path).splits["dev"] == slice(*SPLITS["dev"])


def test_other_datasets_and_their_splits_do_not_matter(tmp_path):
    path = write_good(tmp_path / "movies.hdf5")
    with h5py.File(path, "r+") as file:
        file["sequences"] = np.arange(5)
        file["loop"] = h5py.SoftLink("/loop")
        del file.attrs["split"]
        file.attrs["split"] = split_rows([*COLUMNS, "sequences"], SPLITS)
    assert len(extracted(path).ids) == 60


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / "movies.hdf5"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(PmmoError, match=r"movies.hdf5: (cannot be opened|is not a regular file)"):
        extracted(path)


def test_failure_leaves_earlier_tensors_alone(tmp_path):
    path = write_good(tmp_path / "movies.hdf5")
    extracted(path)
    value("vgg_features", (5, 2), np.nan)(path)
    with pytest.raises(PmmoError):
        extracted(path)
    assert left_behind(tmp_path) == {"tensors"}


def test_stage(tmp_path):
    (tmp_path / "data/fetched").mkdir(parents=True)
    (tmp_path / "settings").mkdir()
    path = write_good(tmp_path / "data" / "fetched" / "movies.hdf5")
    settings = {"nan_text": "zeros", "memory_limit_gb": 1.0, "source": "x"}
    (tmp_path / "settings" / "data.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "stages.extract"]
    run = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    subprocess.run(command, **run, check=True)
    assert len(load_movies(tmp_path / "data" / "tensors").ids) == 60
    value("genres", (1, 1), 7)(path)
    failed = subprocess.run(command, **run, capture_output=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("extract: data/fetched/movies.hdf5: dataset 'genres', row 1")
    assert "Traceback" not in failed.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory from /proc")
def test_memory_is_bounded_by_the_largest_column(tmp_path):
    """A process of its own that extracts a column of 80 MB needs that column once, and 120 MB."""
    rows, width = 2000, 10_000
    path = write_good(tmp_path / "movies.hdf5", **arrays(rows, image=width), splits=_thirds(rows))
    code = (
        "import re, sys; from pathlib import Path; from pmmo.data.extract import extract\n"
        "extract(Path(sys.argv[1]), Path(sys.argv[2]), nan_text='zeros', memory_limit_gb=1.0)\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    command = [sys.executable, "-c", code, path, tmp_path / "tensors"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert int(run.stdout) * 1024 < rows * width * 4 + 120e6


def _thirds(rows: int) -> dict[str, tuple[int, int]]:
    third = rows // 3
    return {"train": (0, third), "dev": (third, 2 * third), "test": (2 * third, rows)}


def real_movies() -> Path:
    """A file of real movies, where there is one: PMMO_REAL_MOVIES, or beside the repository."""
    usual = ROOT.parent / "shared" / "data" / "movies_a.hdf5"
    path = Path(os.environ.get("PMMO_REAL_MOVIES", usual))
    if not path.exists():
        pytest.skip("needs real movies (PMMO_REAL_MOVIES)")
    return path


def test_real_movies(tmp_path):
    real, path = real_movies(), tmp_path / "movies.hdf5"
    fetch(path, source=str(real), memory_limit_gb=1.0, work=tmp_path / ".work" / "fetch")
    movies = extracted(path)
    with h5py.File(real) as file:
        np.testing.assert_array_equal(movies.text, file["features"])
        np.testing.assert_array_equal(movies.image, file["vgg_features"])
        np.testing.assert_array_equal(movies.genres, file["genres"])
        assert movies.ids == tuple(item.decode() for item in file["imdb_ids"][()].tolist())
        assert list(movies.genre_names) == json.loads(file["genres"].attrs["target_names"])
