"""Fetch from a file on this machine and from the synthetic source."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest

from pmmo.core.errors import PmmoError
from pmmo.data.extract import extract
from pmmo.fetching.fetch import fetch
from pmmo.hdf5.layout import COLUMNS
from tests.movie_files import BAD, arrays, hashes, provenance, write_bad, write_good

ROOT = Path(__file__).resolve().parents[2]


def fetched(tmp_path: Path, source: object, **options: object) -> Path:
    target = tmp_path / "data/fetched/movies.hdf5"
    options = {"memory_limit_gb": 1.0, "work": tmp_path / ".work" / "fetch", **options}
    fetch(target, source=str(source), **options)
    assert list(target.parent.iterdir()) == [target]
    return target


def nothing_left(tmp_path: Path) -> bool:
    return not list((tmp_path / "data/fetched").iterdir())


def test_columns_are_copied_and_hashed(tmp_path):
    source = write_good(tmp_path / "own.hdf5")
    target = fetched(tmp_path, source)
    with h5py.File(source) as old, h5py.File(target) as new:
        assert set(new) == set(COLUMNS)
        for name in COLUMNS:
            np.testing.assert_array_equal(old[name], new[name])
        assert new["genres"].attrs["target_names"] == old["genres"].attrs["target_names"]
    assert provenance(target) == {
        "kind": "file",
        "source": str(source),
        "rows": 60,
        "sha256": hashes(source),
        "pinned": False,
        "note": provenance(target)["note"],
    }
    assert "Unpinned" in provenance(target)["note"]
    extract(target, tmp_path / "tensors", nan_text="zeros", memory_limit_gb=1)
    catalogue = json.loads((tmp_path / "tensors" / "movies.json").read_text())
    assert catalogue["provenance"] == provenance(target)


def test_same_source_same_bytes(tmp_path):
    source = write_good(tmp_path / "own.hdf5")
    first = fetched(tmp_path, source).read_bytes()
    assert fetched(tmp_path, source).read_bytes() == first


def test_pinned_hashes(tmp_path):
    source = write_good(tmp_path / "own.hdf5")
    target = fetched(tmp_path, source, sha256=hashes(source))
    assert provenance(target)["pinned"] is True
    some = {"features": hashes(source)["features"].upper(), "genres": ""}
    assert provenance(fetched(tmp_path, source, sha256=some))["pinned"] is False
    before = target.read_bytes()
    with pytest.raises(PmmoError, match=r"own.hdf5: dataset 'genres' has sha256 .* another file"):
        fetched(tmp_path, source, sha256={"genres": 64 * "0"})
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == before


@pytest.mark.parametrize("kind", ["external storage", "cut in half", "gap", "enormous"])
def test_local_file_is_checked(tmp_path, kind):
    source = write_bad(tmp_path / "own.hdf5", kind)
    with pytest.raises(PmmoError) as caught:
        fetched(tmp_path, source)
    assert all(word in str(caught.value) for word in BAD[kind][1].split())
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("cut", [False, True])
def test_local_file_that_changes_meanwhile(tmp_path, monkeypatch, cut):
    """Somebody writes to the file between its check and its copy."""
    source = write_good(tmp_path / "own.hdf5")

    def change(*_: object) -> None:
        if cut:
            os.truncate(source, 3000)
        else:
            os.utime(source, ns=(1, 1))

    monkeypatch.setattr("pmmo.fetching.assembly.check_space", change)
    with pytest.raises(PmmoError, match=r"own.hdf5: (was changed|became shorter)"):
        fetched(tmp_path, source)
    assert nothing_left(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(PmmoError, match=r"none.hdf5: cannot be opened .* data.source"):
        fetched(tmp_path, tmp_path / "none.hdf5")


def test_missing_file_at_a_relative_path(tmp_path, monkeypatch):
    """A queued experiment runs in a copy, where such a path leads elsewhere."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PmmoError) as caught:
        fetched(tmp_path, "none.hdf5")
    assert f"It was looked for in {tmp_path}; an experiment in the queue" in str(caught.value)


def test_synthetic_stays_synthetic(tmp_path, monkeypatch):
    """The label survives a copy of the file."""

    def write_synthetic(path: Path, *, rows: int, seed: int) -> None:
        write_good(path, **arrays(rows=rows, seed=seed))

    module = types.SimpleNamespace(write_synthetic=write_synthetic)
    monkeypatch.setitem(sys.modules, "pmmo.fetching.synthetic", module)
    target = fetched(tmp_path, "synthetic", rows=60, seed=3)
    assert provenance(target)["kind"] == "synthetic"
    copy = target.rename(tmp_path / "copy.hdf5")
    again = provenance(fetched(tmp_path, copy))
    assert again["kind"] == "synthetic"
    assert "not real movies" in again["note"]


def test_stage(tmp_path):
    source = write_good(tmp_path / "own.hdf5")
    settings = {
        **{"source": str(source), "rows": 60, "seed": 0, "mirrors": [], "sha256": {}},
        **{"allow_full_download": False, "nan_text": "zeros", "memory_limit_gb": 1.0},
    }
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "data.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "stages.fetch"]
    run = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    subprocess.run(command, **run, check=True)
    assert hashes(tmp_path / "data/fetched/movies.hdf5") == hashes(source)
    (tmp_path / "data/fetched/movies.hdf5").unlink()  # as DVC does before it runs a stage
    source.write_bytes(b"<html>")
    failed = subprocess.run(command, **run, capture_output=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"fetch: {source}: is not an HDF5 file")
    assert not (tmp_path / "data/fetched/movies.hdf5").exists()
