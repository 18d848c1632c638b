"""Fetch that is killed, run twice at once, or short of room."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pmmo.core.errors import PmmoError
from pmmo.fetching import assembly
from pmmo.fetching.addresses import Address
from pmmo.fetching.download import folder_of
from pmmo.fetching.fetch import fetch
from tests.disks import small_disk
from tests.file_server import FileServer
from tests.movie_files import arrays, hashes, nbytes, write_good

ROOT = Path(__file__).resolve().parents[2]
ROWS, WIDTH = 3000, 5000  # 60 MB: far more than the buffers on the way
THIRDS = {"train": (0, 2000), "dev": (2000, 2500), "test": (2500, ROWS)}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "movies.hdf5"
    return write_good(path, **arrays(ROWS, image=WIDTH), splits=THIRDS)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("other") / "movies.hdf5"
    return write_good(path, **arrays(ROWS, image=WIDTH, seed=1), splits=THIRDS)


def start(folder: Path, url: str, command: list[str] | None = None) -> subprocess.Popen:
    """The stage in its own process group."""
    settings = {"source": url, "memory_limit_gb": 1.0, "nan_text": "zeros"}
    (folder / "settings").mkdir(exist_ok=True)
    (folder / "settings" / "data.json").write_text(json.dumps(settings))
    return subprocess.Popen(
        command or [sys.executable, "-m", "stages.fetch"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen) -> str:
    """Wait for success; what was printed."""
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == 0, printed
    return printed


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until(happened) -> None:
    for _ in range(12_000):
        if happened():
            return
        time.sleep(0.005)
    raise AssertionError("never happened")


def right_and_nothing_else(folder: Path, source: Path) -> None:
    target = folder / "data/fetched/movies.hdf5"
    assert set(target.parent.iterdir()) == {target, target.with_name("columns.json")}
    assert list((folder / ".work" / "fetch").iterdir()) == []
    assert hashes(target) == hashes(source)


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.8])
def test_goes_on_after_kill(tmp_path, large, share):
    with FileServer(large) as server:
        server.pause = 0.0002
        first = start(tmp_path, server.url)
        wait_until(lambda: server.sent > share * nbytes(large))
        kill(first)
        assert not (tmp_path / "data/fetched/movies.hdf5").exists()
        end(start(tmp_path, server.url))
        assert server.sent < 1.1 * nbytes(large)
    right_and_nothing_else(tmp_path, large)


def test_kill_while_putting_together(tmp_path, large):
    growing = "data/fetched/.pmmo-*.tmp/movies.hdf5"
    with FileServer(large) as server:
        first = start(tmp_path, server.url)
        wait_until(lambda: any(path.stat().st_size > 0 for path in tmp_path.glob(growing)))
        kill(first)
        assert not (tmp_path / "data/fetched/movies.hdf5").exists()
        end(start(tmp_path, server.url))
        assert server.sent < 1.1 * nbytes(large)
    right_and_nothing_else(tmp_path, large)


@pytest.mark.parametrize("change", ["etag", "modified", "size", "silent"])
def test_never_mixes_two_versions(tmp_path, large, other, change):
    """Killed, then the file changes; `silent`: part of the part was lost, as by a power cut."""
    with FileServer(large) as server:
        server.pause = 0.0002
        first = start(tmp_path, server.url)
        wait_until(lambda: server.sent > 0.5 * nbytes(large))
        kill(first)
        server.pause = 0
        source = other
        if change == "etag":
            server.etag = '"two"'
        elif change == "modified":
            server.modified = "Thu, 02 Jan 2020 00:00:00 GMT"
        elif change == "size":
            source = tmp_path / "longer.hdf5"
            shutil.copy(other, source)
            with h5py.File(source, "r+") as file:
                file["more"] = np.zeros(1000)
        else:
            source = large
            (part,) = (tmp_path / ".work" / "fetch").glob("*/vgg_features.part")
            with part.open("r+b") as file:
                file.write(bytes(1000))
        server.path = source
        end(start(tmp_path, server.url))
    right_and_nothing_else(tmp_path, source)


def test_two_at_once(tmp_path, large):
    with FileServer(large) as server:
        both = [start(tmp_path, server.url) for _ in range(2)]
        printed = [end(process) for process in both]
    waited = [re.search(r"another fetch uses .*; waiting", text) for text in printed]
    assert len(list(filter(None, waited))) == 1
    right_and_nothing_else(tmp_path, large)


def test_parts_of_other_addresses_are_cleaned(tmp_path, large):
    with FileServer(large) as server:
        server.pause = 0.0002
        first = start(tmp_path, server.url + "?1")
        wait_until(lambda: server.sent > 0.2 * nbytes(large))
        kill(first)
        assert list((tmp_path / ".work" / "fetch").glob("*/*.part"))
        server.pause = 0
        end(start(tmp_path, server.url))
    right_and_nothing_else(tmp_path, large)


@pytest.mark.slow
def test_parts_survive_a_killed_repro(tmp_path, large):
    """DVC removes a stage's outs before it runs; the parts lie elsewhere."""
    dvc = [sys.executable, "-m", "dvc"]
    quiet = {"cwd": tmp_path, "capture_output": True, "check": True}
    subprocess.run([*dvc, "init", "--no-scm", "-q"], **quiet)
    subprocess.run([*dvc, "config", "core.analytics", "false"], **quiet)
    stage = {
        "cmd": f"{sys.executable} -m stages.fetch",
        "deps": ["settings/data.json"],
        "outs": ["data/fetched/movies.hdf5"],
    }
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"fetch": stage}}))
    repro = [*dvc, "repro", "-q", "fetch"]
    with FileServer(large) as server:
        server.pause = 0.0002
        first = start(tmp_path, server.url, repro)
        wait_until(lambda: server.sent > 0.6 * nbytes(large))
        kill(first)
        (part,) = (tmp_path / ".work" / "fetch").glob("*/vgg_features.part")
        assert part.stat().st_size > 0.4 * nbytes(large)
        end(start(tmp_path, server.url, repro))
        assert server.sent < 1.1 * nbytes(large)
    right_and_nothing_else(tmp_path, large)
    assert "data/fetched/movies.hdf5" in (tmp_path / "dvc.lock").read_text()


# ---- a work folder that is not this project's


@pytest.mark.parametrize("name", [".work", ".work/fetch"])
def test_a_work_folder_that_is_a_link_is_neither_emptied_nor_written_through(tmp_path, name):
    mine = tmp_path / "mine"
    (mine / "fetch").mkdir(parents=True)
    (mine / "thesis").write_text("mine")
    (mine / "fetch" / "thesis").write_text("mine")
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(mine)
    source = write_good(tmp_path / "own.hdf5")
    with pytest.raises(PmmoError, match=r"\.work.*: is a link to .*mine, and is emptied after use"):
        fetch(
            tmp_path / "data/movies.hdf5",
            source=str(source),
            memory_limit_gb=1,
            work=tmp_path / ".work/fetch",
        )
    assert {path.name for path in mine.iterdir()} == {"fetch", "thesis"}
    assert [path.name for path in (mine / "fetch").iterdir()] == ["thesis"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", ["folder", "part", "journal", "other"])
def test_links_in_the_work_folder_are_not_followed(tmp_path, large, kind):
    """In the place of an address's folder, of a part, of its journal; or anywhere else."""
    work, victim = tmp_path / ".work/fetch", tmp_path / "victim"
    with FileServer(large) as server:
        folder = folder_of(work, Address(server.url, server.url, ()))
        folder.parent.mkdir(parents=True)
        if kind in ("folder", "other"):
            victim.mkdir()
            (victim / "thesis").write_text("mine")
            (folder if kind == "folder" else work / "other").symlink_to(victim)
        else:
            server.pause = 0.0002
            first = start(tmp_path, server.url)
            wait_until(lambda: server.sent > 0.5 * nbytes(large))
            kill(first)
            server.pause = 0
            name = "journal.json" if kind == "journal" else "vgg_features.part"
            (folder / name).rename(victim)
            before = victim.read_bytes()
            (folder / name).symlink_to(victim)
        with contextlib.suppress(PmmoError):
            fetch(tmp_path / "movies.hdf5", source=server.url, memory_limit_gb=1, work=work)
    if victim.is_dir():
        assert [path.name for path in victim.iterdir()] == ["thesis"]
    else:
        assert victim.read_bytes() == before


# ---- no room


def test_too_little_room_is_seen_before_anything_moves(tmp_path, large, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(assembly.shutil, "disk_usage", lambda folder: usage)
    with FileServer(large) as server, pytest.raises(PmmoError, match=r"needed there .* are free"):
        fetch(tmp_path / "x", source=server.url, memory_limit_gb=1, work=tmp_path / "work")
    assert server.sent < 1 << 20


@pytest.mark.parametrize("full", ["work", "data"])
def test_disk_that_fills_up_on_the_way(tmp_path, large, monkeypatch, full):
    monkeypatch.setattr("pmmo.fetching.download.check_space", lambda *_: None)
    monkeypatch.setattr("pmmo.fetching.assembly.check_space", lambda *_: None)
    target, work = tmp_path / "data" / "movies.hdf5", tmp_path / "work" / "fetch"
    with FileServer(large) as server, small_disk(tmp_path / full, "size=20m"):
        with pytest.raises(PmmoError, match=r"cannot be written \(No space left on device\)"):
            fetch(target, source=server.url, memory_limit_gb=1, work=work)
        assert list(target.parent.iterdir()) == []
        assert "fetch.lock" in {entry.name for entry in work.parent.iterdir()}


@contextlib.contextmanager
def ordinary_user():
    """Permissions do not bind root: be nobody for a while, in a folder that nobody can reach."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)


def test_read_only_target(large):
    with ordinary_user() as folder:
        locked = folder / "data"
        locked.mkdir(mode=0o555)
        with (
            FileServer(large) as server,
            pytest.raises(PmmoError, match=r"data.*Permission denied"),
        ):
            fetch(
                locked / "movies.hdf5",
                source=server.url,
                memory_limit_gb=1,
                work=folder / "work" / "fetch",
            )
        assert server.sent == 0
        assert list(locked.iterdir()) == []
