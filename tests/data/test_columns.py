"""Columns in pieces: checked while they are read, in the order of the rows."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from pmmo.core.errors import PmmoError
from pmmo.data import extract as module
from pmmo.data.extract import extract
from pmmo.hdf5.sources import LocalFile
from tests.disks import small_disk
from tests.movie_files import arrays, value, write_good


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Three movies of an image row of 64 bytes in a piece."""
    monkeypatch.setattr(module, "BUFFER", 3 * 64)


def folder_of(path, nan_text="zeros"):
    folder = path.parent / "tensors"
    extract(path, folder, nan_text=nan_text, memory_limit_gb=1)
    return folder


def test_pieces_make_the_whole_column(tmp_path):
    written = arrays()
    folder = folder_of(write_good(tmp_path / "movies.hdf5"))
    for key, dtype in (("text", np.float32), ("image", np.float32), ("genres", np.uint8)):
        tensor = load_file(folder / f"{key}.safetensors")[key]
        assert tensor.dtype == dtype
        np.testing.assert_array_equal(tensor, written[key])


def test_the_first_bad_row_is_told(tmp_path):
    path = write_good(tmp_path / "movies.hdf5")
    value("vgg_features", (range(7, 60), 3), np.inf)(path)
    with pytest.raises(PmmoError, match=r"'vgg_features', row 7 \(id '0000007'\), column 3: inf"):
        folder_of(path)
    value("features", (range(32, 60), 1), np.nan)(path)
    with pytest.raises(PmmoError, match=r"'features', row 32 \(id '0000032'\), column 1: nan"):
        folder_of(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("infinite", "told"), [(3, "column 0: inf"), (6, "text vector is NaN")])
def test_of_two_kinds_of_bad_text_the_first_is_told(tmp_path, infinite, told):
    path = write_good(tmp_path / "movies.hdf5")
    value("features", 5, np.nan)(path)
    value("features", (infinite, 0), np.inf)(path)
    with pytest.raises(PmmoError, match=rf"row {min(infinite, 5)} .*{told}"):
        folder_of(path, nan_text="error")


def test_movies_without_text_are_named_in_order(tmp_path):
    text, empty = arrays()["text"], [0, 1, 8, 23, 24, 25, 40, 59]
    text[empty] = np.nan
    folder = folder_of(write_good(tmp_path / "movies.hdf5", text=text))
    catalogue = json.loads((folder / "movies.json").read_text())
    assert catalogue["nan_text"]["ids"] == [f"{row:07d}" for row in empty]
    assert not load_file(folder / "text.safetensors")["text"][empty].any()


def test_system_calls_that_do_less_than_asked(tmp_path, monkeypatch):
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, place: read(file, [views[0][:99]], place))
    folder = folder_of(write_good(tmp_path / "movies.hdf5"))
    np.testing.assert_array_equal(
        load_file(folder / "image.safetensors")["image"], arrays()["image"]
    )


def test_disk_that_fills_up(tmp_path):
    """A column of 4 MB on a disk of 2."""
    path = write_good(tmp_path / "movies.hdf5", **arrays(image=16_000))
    with small_disk(tmp_path / "full", "size=2m"):
        target = tmp_path / "full" / "tensors"
        with pytest.raises(PmmoError, match=r"cannot be written \(.*No space left on device"):
            extract(path, target, nan_text="zeros", memory_limit_gb=1)
        assert list((tmp_path / "full").iterdir()) == []


def test_file_that_becomes_shorter(tmp_path, monkeypatch):
    path = write_good(tmp_path / "movies.hdf5")
    fill = LocalFile.fill

    def cut(self, view, offset):
        os.truncate(path, 5000)
        fill(self, view, offset)

    monkeypatch.setattr(LocalFile, "fill", cut)
    with pytest.raises(PmmoError, match="became shorter while it was read"):
        folder_of(path)
    assert list(tmp_path.iterdir()) == [path]
