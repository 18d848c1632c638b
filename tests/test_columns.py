"""Columns in pieces: whatever thread comes first, the result is that of one after another."""

import errno
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from disks import small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from movie_files import arrays, value, write_good
from safetensors.numpy import load_file

from pmmo import columns
from pmmo.columns import TensorFile, write_tensors
from pmmo.errors import PmmoError
from pmmo.extract import extract
from pmmo.layout import Column
from pmmo.sources import LocalFile

ROW = 16 * 4  # bytes of an image row in these tests


@pytest.fixture
def small_pieces(monkeypatch):
    """Three movies a piece, more threads than usual, and some of them dawdle."""
    monkeypatch.setattr(columns, "PIECE", 3 * ROW)
    monkeypatch.setattr(columns, "THREADS", 4)
    fill = LocalFile.fill

    def slow(self, view: memoryview, offset: int) -> None:
        time.sleep(random.choice([0, 0, 0.003]))
        fill(self, view, offset)

    monkeypatch.setattr(LocalFile, "fill", slow)


def stored(folder: Path, values: np.ndarray, offset: int = 24) -> tuple[Path, Column]:
    """A file that holds `values` from byte `offset` on, among other bytes."""
    path = folder / "column.bin"
    path.write_bytes(b"x" * offset + values.tobytes() + b"yy")
    return path, Column("any", values.shape, values.dtype.str, offset)


def passed(folder: Path, values: np.ndarray, check, kind: str = "F32") -> tuple[np.ndarray, list]:
    """(tensor as safetensors loads it, rows of note) of a column with these `values`."""
    path, column = stored(folder, values)
    with LocalFile(path) as source:
        (noted,) = write_tensors(folder, source, TensorFile("image", kind, column, check))
    return load_file(folder / "image.safetensors")["image"], noted


def every_row(first: int, rows: np.ndarray) -> list[int]:
    return list(range(first, first + len(rows)))


def folder_of(path: Path, nan_text: str = "zeros") -> Path:
    folder = path.parent / "tensors"
    extract(path, folder, nan_text=nan_text, memory_limit_gb=1)
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 30)),
    piece=st.integers(1, 4000),
    threads=st.integers(1, 5),
    kind=st.sampled_from(["F32", "U8"]),
)
def test_any_shape_in_any_pieces(tmp_path, shape, piece, threads, kind):
    """Also fewer rows than threads, and rows wider than a piece."""
    values = (
        np.random.default_rng(0).integers(0, 2, shape).astype("<f4" if kind == "F32" else "<i4")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "PIECE", piece)
        patch.setattr(columns, "THREADS", threads)
        tensor, noted = passed(tmp_path, values, every_row, kind)
    assert tensor.dtype == {"F32": np.float32, "U8": np.uint8}[kind]
    np.testing.assert_array_equal(tensor, values)
    assert noted == list(range(shape[0]))


@pytest.mark.usefixtures("small_pieces")
def test_changes_of_the_check_are_written_and_its_rows_come_back_in_order(tmp_path):
    values = arrays()["image"]

    def check(first: int, rows: np.ndarray) -> list[int]:
        rows[0] = first
        return [first, first + len(rows) - 1]

    tensor, noted = passed(tmp_path, values, check)
    values[::3] = np.arange(0, 60, 3)[:, None]
    np.testing.assert_array_equal(tensor, values)
    assert noted == sorted(noted)
    assert len(noted) == 40


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("attempt", range(5))
def test_the_first_bad_row_is_told(tmp_path, attempt):
    """Bad rows in every later piece, which are often looked at earlier."""
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


@pytest.mark.usefixtures("small_pieces")
def test_movies_without_text_are_named_in_order(tmp_path):
    text, empty = arrays()["text"], [0, 1, 8, 23, 24, 25, 40, 59]
    text[empty] = np.nan
    folder = folder_of(write_good(tmp_path / "movies.hdf5", text=text))
    catalogue = json.loads((folder / "movies.json").read_text())
    assert catalogue["nan_text"]["ids"] == [f"{row:07d}" for row in empty]


@pytest.mark.usefixtures("small_pieces")
def test_what_is_checked_is_what_is_written(tmp_path, monkeypatch):
    """No byte is read twice: a file that changes meanwhile cannot slip anything past the check."""
    read = []
    fill = LocalFile.fill

    def noted(self, view: memoryview, offset: int) -> None:
        read.append((offset, len(view)))
        fill(self, view, offset)

    monkeypatch.setattr(LocalFile, "fill", noted)
    values = arrays()["image"]
    passed(tmp_path, values, every_row)
    ends = [offset + length for offset, length in sorted(read)]
    assert [offset for offset, _ in sorted(read)] == [24, *ends[:-1]]
    assert ends[-1] == 24 + values.nbytes


def test_system_calls_that_do_less_than_asked(tmp_path, monkeypatch):
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, view, place: write(file, view[:77], place))
    monkeypatch.setattr(os, "preadv", lambda file, views, place: read(file, [views[0][:99]], place))
    values = arrays()["image"]
    np.testing.assert_array_equal(passed(tmp_path, values, every_row)[0], values)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_file_systems_that_cannot_reserve_room(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    if number is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    values = arrays()["image"]
    np.testing.assert_array_equal(passed(tmp_path, values, every_row)[0], values)


@pytest.mark.parametrize("reserve", [True, False])
def test_disk_that_fills_up(tmp_path, monkeypatch, reserve):
    """A column of 4 MB on a disk of 2: known at once, or found out on the way."""
    if not reserve:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path = write_good(tmp_path / "movies.hdf5", **arrays(image=16_000))
    with small_disk(tmp_path / "full", "size=2m"):
        target = tmp_path / "full" / "tensors"
        with pytest.raises(PmmoError, match=r"cannot be written \(No space left on device\)"):
            extract(path, target, nan_text="zeros", memory_limit_gb=1)
        assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_errors_of_writing_are_told(tmp_path, monkeypatch, call):
    """As above, for machines that may not mount a small disk."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full, raising=False)
    path = write_good(tmp_path / "movies.hdf5")
    with pytest.raises(PmmoError, match=r"cannot be written \(No space left on device\)"):
        folder_of(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("small_pieces")
def test_file_that_becomes_shorter(tmp_path):
    path, column = stored(tmp_path, arrays()["image"])
    with LocalFile(path) as source:
        os.truncate(path, 2000)
        with pytest.raises(PmmoError, match="became shorter while it was read"):
            write_tensors(tmp_path, source, TensorFile("image", "F32", column, every_row))
