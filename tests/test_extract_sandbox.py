"""The child process that looks into files: what it may not do, and what becomes of its end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from movie_files import file_attribute, write_good

from pmmo.sandbox import inspect
from pmmo.sources import BadFile, LocalFile

ROOT = Path(__file__).resolve().parent.parent


def inspecting() -> list[psutil.Process]:
    """The children of this process that look into a file; other tests may have left others."""
    found = psutil.Process().children()
    alive = [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "pmmo.inspection" in child.cmdline()]


class Interfering(LocalFile):
    """A file that does something to the child process when it asks for its third piece."""

    signal_number: int
    reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        if self.reads == 4:  # the first is the parent's own
            (child,) = inspecting()
            child.send_signal(self.signal_number)
        return super().read(offset, length)


@pytest.mark.parametrize(
    ("number", "seconds", "words"),
    [
        (signal.SIGSEGV, 20, "the HDF5 library crashes on it: SIGSEGV"),
        (signal.SIGABRT, 20, "the HDF5 library crashes on it: SIGABRT"),
        (signal.SIGXCPU, 20, "too much processor time"),
        (signal.SIGSTOP, 2, "takes more than 2 s"),
    ],
)
def test_end_of_the_child_is_an_error_in_words(tmp_path, number, seconds, words):
    with Interfering(write_good(tmp_path / "movies.hdf5")) as file:
        file.signal_number = number
        with pytest.raises(BadFile, match=words):
            inspect(file, seconds=seconds)
    assert not inspecting()


def test_memory_limit(tmp_path):
    with LocalFile(write_good(tmp_path / "movies.hdf5")) as file:
        with pytest.raises(BadFile, match=r"more than 0 MiB of memory|ended with|Unable|crashes"):
            inspect(file, memory=1 << 16)
        assert "columns" in inspect(file)


def test_an_answer_that_does_not_fit_into_the_memory(tmp_path):
    """An attribute of 2 MB is read; in JSON it has 12."""
    path = write_good(tmp_path / "movies.hdf5")
    file_attribute("provenance", "\x01" * 2_000_000)(path)
    with LocalFile(path) as file, pytest.raises(BadFile, match=r"more than 16 MiB of memory"):
        inspect(file, memory=16 << 20)


@pytest.mark.parametrize(
    "deed",
    [
        "open('/etc/passwd')",
        "open('written', 'w')",
        "import socket; socket.socket()",
        "bytearray(1 << 28)",
        "import h5py; h5py.File(sys.argv[1])",
        "while True: pass",
    ],
)
def test_the_child_can_do_no_harm(tmp_path, deed):
    path = write_good(tmp_path / "movies.hdf5")
    code = (
        "import sys; from pmmo.inspection import limit_process, rehearse\n"
        "rehearse(); limit_process(1 << 24, 1)\n"
        f"{deed}\nprint('done')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert run.returncode != 0
    assert "done" not in run.stdout
    assert not (tmp_path / "written").exists()
