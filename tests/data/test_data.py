"""Loading of what extract writes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pmmo.core.errors import PmmoError
from pmmo.data.extract import extract
from pmmo.data.movies import load_movies
from tests.movie_files import SPLITS, arrays, write_good


@pytest.fixture
def folder(tmp_path) -> Path:
    path = write_good(tmp_path / "movies.hdf5")
    extract(path, tmp_path / "tensors", nan_text="zeros", memory_limit_gb=1)
    return tmp_path / "tensors"


def test_splits_are_views_of_the_right_rows(folder):
    movies, values = load_movies(folder), arrays()
    for name, (start, stop) in SPLITS.items():
        text, image, genres = movies.split(name)
        np.testing.assert_array_equal(text, values["text"][start:stop])
        np.testing.assert_array_equal(image, values["image"][start:stop])
        np.testing.assert_array_equal(genres, values["genres"][start:stop])
        assert text.untyped_storage().data_ptr() == movies.text.untyped_storage().data_ptr()
    assert [movies.text.dtype, movies.genres.dtype] == [torch.float32, torch.uint8]


def test_writing_to_a_tensor_does_not_reach_the_file(folder):
    load_movies(folder).image[0, 0] = 99
    assert load_movies(folder).image[0, 0] == arrays()["image"][0, 0]


def test_tensors_are_mapped_not_read(folder):
    """A file of 400 MB of holes is loaded without its pages."""
    path, width = folder / "image.safetensors", 2_000_000
    save_file({"image": np.zeros((60, 1), "<f4")}, path)
    header = json.dumps({"image": {"dtype": "F32", "shape": [60, width],
                                   "data_offsets": [0, 240 * width]}}).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 240 * width)
    before = _resident()
    image = load_movies(folder).image
    assert image.shape == (60, width)
    assert image[-1, -1] == 0
    assert _resident() - before < 20 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def other_shape(path: Path) -> None:
    save_file({"text": np.zeros((59, 8), "<f4")}, path)


def other_type(path: Path) -> None:
    save_file({"text": np.zeros((60, 8), "u1")}, path)


def other_key(path: Path) -> None:
    save_file({"image": np.zeros((60, 8), "<f4")}, path)


@pytest.mark.parametrize("harm", [Path.unlink, short, other_shape, other_type, other_key])
def test_harmed_tensors_are_refused(folder, harm):
    harm(folder / "text.safetensors")
    with pytest.raises(PmmoError, match=r"tensors: is not what .* Run `dvc repro extract`"):
        load_movies(folder)


@pytest.mark.parametrize("text", [None, "", "{}", "[]"])
def test_harmed_catalogue_is_refused(folder, text):
    path = folder / "movies.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(PmmoError, match=r"tensors: is not what .* Run `dvc repro extract`"):
        load_movies(folder)
