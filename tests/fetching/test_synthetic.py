"""The synthetic movies: layout, bytes, counts, and that they can be learnt from."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pmmo.analysis.metrics import f1_scores
from pmmo.core import names
from pmmo.core.errors import PmmoError
from pmmo.fetching.synthetic import (
    SMALLEST,
    THEMES,
    _genres,
    _image,
    _on_grid,
    _splits,
    genre_targets,
    synthetic_movies,
    write_synthetic,
)
from pmmo.hdf5 import layout
from pmmo.hdf5.writer import SPLIT_DTYPE
from pmmo.published.mmimdb import GENRE_COUNTS, GENRES, IMAGE_WIDTH, ROWS, SPLITS, TEXT_WIDTH
from tests.movie_files import hashes, provenance

REAL = Path(os.environ.get("PMMO_REAL_MOVIES", "shared/data/movies_a.hdf5"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "movies.hdf5"
    write_synthetic(path, rows=60, seed=3)
    return path


@pytest.fixture(scope="module")
def full_genres() -> np.ndarray:
    return _genres(ROWS, np.random.default_rng(0))


def test_facts_agree_with_each_other():
    """64,499 labels, 2.4846 a movie; splits that follow each other and cover the file."""
    counts = list(GENRE_COUNTS.values())
    assert sum(counts) == 64_499
    assert counts == sorted(counts, reverse=True)
    assert len(GENRES) == 23
    bounds = [bound for split in SPLITS.values() for bound in split]
    assert bounds == [0, 15_552, 15_552, 18_160, 18_160, ROWS]


def test_same_seed_same_bytes_another_seed_others(small: Path, tmp_path: Path):
    again, other = tmp_path / "again.hdf5", tmp_path / "other.hdf5"
    write_synthetic(again, rows=60, seed=3)
    write_synthetic(other, rows=60, seed=4)
    assert again.read_bytes() == small.read_bytes()
    with h5py.File(small) as a, h5py.File(other) as b:
        for column in ("features", "vgg_features", "genres"):
            assert not np.array_equal(a[column][:], b[column][:])


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"},
        {"OPENBLAS_CORETYPE": "Nehalem"},  # the oldest kernels: other order of summation, no FMA
    ],
    ids=["1 thread", "4 threads", "another BLAS kernel"],
)
def test_bytes_do_not_depend_on_threads_or_blas(environment: dict[str, str]):
    code = (
        "import hashlib; from pmmo.fetching.synthetic import synthetic_movies;"
        "m = synthetic_movies(1500, 5);"
        "print(hashlib.sha256(m.text.tobytes() + m.image.tobytes()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    movies = synthetic_movies(1500, 5)
    expected = hashlib.sha256(movies.text.tobytes() + movies.image.tobytes()).hexdigest()
    assert run.stdout.strip() == expected


def test_grid_products_are_exact():
    """The promise behind the bytes: float32 sums on the grids equal those of whole numbers."""
    rng = np.random.default_rng(0)
    left, right = 3 * rng.standard_normal((40, 55)), rng.standard_normal((55, 30))
    a, b = _on_grid(left, 6), _on_grid(right, 8)  # (40, 55), (55, 30)
    whole = (a.astype(float) * 2**6).astype(np.int64) @ (b.astype(float) * 2**8).astype(np.int64)
    assert np.array_equal((a @ b).astype(float), whole / 2**14)
    assert np.abs(a - left).max() <= 2**-7
    assert np.abs(b - right).max() <= 2**-9


def test_theme_rows_leave_room_for_each_genres_own_part():
    assert THEMES.shape == (len(GENRES), 8)
    assert (np.square(THEMES).sum(axis=1) < 1).all()


def test_counts_at_full_size(full_genres: np.ndarray):
    """The published counts, and no movie without a genre."""
    published = np.array(list(GENRE_COUNTS.values()))
    assert np.abs(full_genres.sum(axis=0) / published - 1).max() <= 0.005
    assert full_genres.sum(axis=1).min() >= 1
    assert set(np.unique(full_genres)) == {0, 1}
    assert _splits(ROWS) == dict(SPLITS)


def test_genres_meet_as_in_life(full_genres: np.ndarray):
    """Some genres attract and some avoid each other, compared with independent ones."""

    def lift(a: str, b: str) -> float:
        one, other = full_genres[:, GENRES.index(a)], full_genres[:, GENRES.index(b)]
        return float((one * other).mean() / (one.mean() * other.mean()))

    for pair in [("Crime", "Thriller"), ("Action", "Adventure"), ("Animation", "Family")]:
        assert lift(*pair) > 1.8
    for pair in [("Drama", "Documentary"), ("Comedy", "Thriller"), ("Horror", "Romance")]:
        assert lift(*pair) < 0.6


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(SMALLEST, 400), seed=st.integers(0, 2**63))
def test_any_size_and_seed(rows: int, seed: int):
    movies = synthetic_movies(rows, seed)
    assert movies.text.shape == (rows, TEXT_WIDTH)
    assert movies.image.shape == (rows, IMAGE_WIDTH)
    assert movies.text.dtype == movies.image.dtype == np.float32
    assert np.isfinite(movies.text).all()
    assert np.isfinite(movies.image).all()
    assert movies.image.min() == 0
    assert movies.genres.dtype == np.int32
    assert movies.genres.sum(axis=0).tolist() == genre_targets(rows).tolist()
    assert movies.genres.sum(axis=1).min() >= 1
    assert len(set(movies.ids.tolist())) == rows
    assert all(len(i) == 7 and i.isdigit() and i.startswith(b"9") for i in movies.ids.tolist())
    bounds = [bound for split in movies.splits.values() for bound in split]
    assert tuple(movies.splits) == names.SPLITS
    assert (bounds[0], bounds[1], bounds[3], bounds[5]) == (0, bounds[2], bounds[4], rows)
    assert all(start < stop for start, stop in movies.splits.values())


@pytest.mark.parametrize("rows", [-1, 0, SMALLEST - 1, 1_000_001])
def test_refuses_sizes_out_of_range(rows: int, tmp_path: Path):
    with pytest.raises(PmmoError, match=rf"{rows} rows.* smallest number is {SMALLEST} "):
        write_synthetic(tmp_path / "movies.hdf5", rows=rows, seed=0)
    assert not list(tmp_path.iterdir())


def test_refuses_a_negative_seed():
    with pytest.raises(PmmoError, match="seed is -1"):
        synthetic_movies(60, -1)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "movies.hdf5"
    path.write_bytes(b"before")

    def full_disk(partial: Path, **_: object) -> None:
        partial.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("pmmo.fetching.synthetic.write_movies", full_disk)
    with pytest.raises(PmmoError, match="No space left"):
        write_synthetic(path, rows=60, seed=0)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("movies.hdf5", b"before")]


def test_file_has_the_published_layout(small: Path):
    with h5py.File(small) as file:
        assert set(file) == set(layout.COLUMNS)
        expected = {
            "imdb_ids": ((60,), "|S7", ["batch"]),
            "genres": ((60, 23), "<i4", ["batch", "classes"]),
            "features": ((60, 300), "<f4", ["batch", "features"]),
            "vgg_features": ((60, 4096), "<f4", ["batch", "features"]),
        }
        assert {name: _described(file[name]) for name in file} == expected
        for dataset in file.values():
            assert dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert json.loads(file["genres"].attrs["target_names"]) == list(GENRES)


def test_split_attribute(small: Path):
    """60/10/30 %, one record per (split, source), none of them pointing at indices."""
    with h5py.File(small) as file:
        split = file.attrs["split"]
        assert split.dtype.names == SPLIT_DTYPE.names
        assert len(split) == 3 * 4
        for source in layout.COLUMNS:
            bounds = {
                row["split"].decode(): (int(row["start"]), int(row["stop"]))
                for row in split
                if row["source"] == source.encode()
            }
            assert bounds == {"train": (0, 36), "dev": (36, 42), "test": (42, 60)}
        assert split["available"].all()
        assert not any(split["indices"])


def test_provenance_says_synthetic_and_hashes_the_columns(small: Path):
    said = provenance(small)
    assert said["kind"] == "synthetic"
    assert "synthetic" in said["note"].lower()
    assert (said["rows"], said["seed"]) == (60, 3)
    assert said["sha256"] == hashes(small)


@pytest.mark.skipif(not REAL.exists(), reason=f"no real movies at {REAL} (PMMO_REAL_MOVIES)")
def test_layout_equals_that_of_real_movies(small: Path):
    """Types, labels and records as in a file of real movies; only widths and names may differ."""
    with h5py.File(small) as ours, h5py.File(REAL) as theirs:
        for name in ours:
            assert _described(ours[name])[1:] == _described(theirs[name])[1:]
            assert set(ours[name].attrs) == set(theirs[name].attrs)
            assert ours[name].attrs["DIMENSION_LABELS"].dtype == object
            assert all(f[name].id.get_create_plist().get_layout() == 1 for f in (ours, theirs))
        assert ours.attrs["split"].dtype == theirs.attrs["split"].dtype
        assert type(json.loads(theirs["genres"].attrs["target_names"])) is list


def test_text_tells_more_than_image():
    """Logistic regressions on 1,200 movies: text beats image, and both beat chance."""
    movies = synthetic_movies(1_200, seed=1)
    train, test = slice(0, 800), slice(800, 1_200)
    frequent = slice(0, 8)  # genres with enough movies at this size

    def weighted(x: np.ndarray, genres: np.ndarray) -> float:
        x = StandardScaler().fit(x[train]).transform(x)
        predicted = [
            LogisticRegression(C=0.01, max_iter=200).fit(x[train], y[train]).predict(x[test])
            for y in genres[:, frequent].T
        ]
        truth = movies.genres[test, frequent]
        return f1_scores(truth, np.stack(predicted, axis=1))["weighted"]

    shuffled = np.random.default_rng(0).permutation(movies.genres)
    chance = weighted(movies.text, shuffled)
    text = weighted(movies.text, movies.genres)
    image = weighted(movies.image[:, ::8], movies.genres)
    assert text > image + 0.05
    assert image > chance + 0.05


def test_four_in_five_image_features_are_zero():
    genres = _genres(300, np.random.default_rng(1))
    image = _image(genres, np.random.default_rng(2))
    assert (image == 0).mean() == pytest.approx(0.80, abs=0.02)
    assert 8 < image.max() < 40


def test_image_rows_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch):
    genres = _genres(100, np.random.default_rng(1))
    whole = _image(genres, np.random.default_rng(2))
    monkeypatch.setattr("pmmo.fetching.synthetic.BLOCK", 7)
    assert np.array_equal(_image(genres, np.random.default_rng(2)), whole)


def _described(dataset: h5py.Dataset) -> tuple[tuple[int, ...], str, list[str]]:
    return dataset.shape, dataset.dtype.str, [dim.label for dim in dataset.dims]
