"""The child process that looks into files: what it may not do, and what becomes of its end."""

import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import pytest

from pmmo.hdf5 import inspection
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import BadFile, LocalFile
from tests.movie_files import arrays, file_attribute, write_good

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def movies(tmp_path):
    with LocalFile(write_good(tmp_path / "movies.hdf5")) as file:
        yield file


def printed(code: str, path: Path) -> str:
    """What a new Python process prints that runs `code` with `path` as its argument."""
    command = [sys.executable, "-c", code, path]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout


@pytest.fixture(autouse=True)
def _nothing_stays_behind():
    """No child, no pipe."""
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    yield
    assert not multiprocessing.active_children()
    assert len(os.listdir("/dev/fd")) <= before  # noqa: PTH208


class Interfering(LocalFile):
    """A file that does something to the child process when it asks for its third piece."""

    signal_number: int
    reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        if self.reads == 4:  # the first is the parent's own
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, self.signal_number)
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


def test_an_answer_that_does_not_fit_into_the_memory(tmp_path):
    """An attribute of 8 MB is read; in JSON it has 48. In a process that has nothing unused: what
    the memory limit allows is beyond what the child inherits, be it in use or not.
    """
    path = write_good(tmp_path / "movies.hdf5")
    file_attribute("provenance", "\x01" * 8_000_000)(path)
    code = (
        "import sys; from pathlib import Path; from pmmo.hdf5.sandbox import inspect\n"
        "from pmmo.hdf5.sources import BadFile, LocalFile\n"
        "try:\n    inspect(LocalFile(Path(sys.argv[1])), memory=64 << 20)\n"
        "except BadFile as error:\n    print(error)"
    )
    assert "more than 64 MiB of memory" in printed(code, path)


@pytest.fixture
def misled(monkeypatch):
    """Make the child run some code where it looks into the foreign file: `misled(code)`."""
    look = inspection.file_facts

    def mislead(code: str, **names: object) -> None:
        def file_facts(file: h5py.File) -> dict:
            if file.driver == "core":  # the rehearsal
                return look(file)
            exec(code, {"h5py": h5py, "os": os, "sys": sys, "socket": socket, **names})
            return {"done": True}

        monkeypatch.setattr(inspection, "file_facts", file_facts)

    return mislead


def test_code_of_these_tests_is_run(movies, misled):
    misled("pass")
    assert inspect(movies) == {"done": True}


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("open('/etc/passwd')", "Too many open files"),
        ("open('written', 'w')", "Too many open files"),
        ("socket.socket()", "Too many open files"),
        ("h5py.File(path)", "Too many open files"),
        ("os.pread(opened, 4, 0)", "Bad file descriptor"),
        ("os.write(1, b'out')", "Bad file descriptor"),
        ("bytearray(1 << 36)", "more than 64 MiB of memory"),
        ("while True: pass", "takes more than 2 s"),
        ("sys.exit(0)", "ended with code 1"),
        ("raise KeyboardInterrupt", "ended with code 1"),
        ("os._exit(7)", "ended with code 7"),
    ],
)
def test_the_child_can_do_no_harm(tmp_path, monkeypatch, movies, misled, deed, words):
    monkeypatch.chdir(tmp_path)
    with Path(movies.name).open("rb") as opened:
        misled(deed, path=movies.name, opened=opened.fileno())
        with pytest.raises(BadFile, match=words):
            inspect(movies, memory=64 << 20, seconds=2)
    assert not (tmp_path / "written").exists()


def count_open() -> str:
    def is_open(descriptor: int) -> bool:
        try:
            os.fstat(descriptor)
        except OSError:
            return False
        return True

    return f"{sum(map(is_open, range(1000)))} open"


def test_two_pipes_are_all_that_the_child_has_open(movies, misled):
    high = os.dup2(0, 900)
    try:
        misled("raise ValueError(count_open())", count_open=count_open)
        with pytest.raises(BadFile, match=r"\(2 open\)"):
            inspect(movies)
    finally:
        os.close(high)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("RLIMIT_CPU", 4), ("RLIMIT_NOFILE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)],
)
def test_limits_cannot_be_raised_again(movies, misled, limit, expected):
    code = f"raise ValueError(getrlimit({getattr(resource, limit)}))"
    misled(code, getrlimit=resource.getrlimit)
    with pytest.raises(BadFile, match=rf"\(\({expected}, {expected}\)\)"):
        inspect(movies, seconds=3.5)


def test_processor_time_is_counted_from_the_childs_start(tmp_path):
    """A process that has used more than the limit already can look into files all the same."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from pmmo.hdf5.sandbox import inspect; from pmmo.hdf5.sources import LocalFile\n"
        "while time.process_time() < 2.5: pass\n"
        "with LocalFile(Path(sys.argv[1])) as file: print(list(inspect(file, seconds=1)))"
    )
    assert "columns" in printed(code, write_good(tmp_path / "movies.hdf5"))


def test_what_the_parent_has_begun_is_not_finished_by_the_child(tmp_path):
    """Text that waits in a buffer, and what is to be done at the end, happen once."""
    code = (
        "import atexit, sys; from pathlib import Path\n"
        "from pmmo.hdf5.sandbox import inspect; from pmmo.hdf5.sources import LocalFile\n"
        "atexit.register(print, 'end'); sys.stdout.write('begun, ')\n"
        "with LocalFile(Path(sys.argv[1])) as file: inspect(file)"
    )
    assert printed(code, write_good(tmp_path / "movies.hdf5")) == "begun, end\n"


def test_while_other_threads_use_hdf5(tmp_path, movies):
    """A fork copies locks that other threads hold; h5py sees to it that its own is free."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with h5py.File(tmp_path / "movies.hdf5") as file:
                file["genres"][()]

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert "columns" in inspect(movies, seconds=5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def speaking(monkeypatch, words: bytes) -> None:
    """The child says this and nothing else, as one that a file has taken over may."""

    def main(hears: int, says: int, *_: object) -> None:
        os.write(says, words)
        time.sleep(60)

    monkeypatch.setattr(inspection, "main", main)


NONSENSE = [
    *(b"\n", b"{\n", b"[]\n", b"null\n", b'"read"\n', b"{}\n", b"\xff\n", b"[" * 50_000 + b"\n"),
    *(b'{"read": %b}\n' % numbers for numbers in (b"1", b"[1]", b"[0, -1]", b"[-1, 4]", b"{}")),
    *(b'{"read": %b}\n' % numbers for numbers in (b"[0.5, 1]", b"[true, 1]", b"[0, 1e99]", b"[]")),
    *(b'{"facts": []}\n', b'{"error": "\\u001b[2J%b"}\n' % (b"x" * 9000)),
]


@pytest.mark.parametrize("words", NONSENSE, ids=range(len(NONSENSE)))
def test_what_a_child_says_that_makes_no_sense_is_a_refusal(monkeypatch, movies, words):
    speaking(monkeypatch, words)
    with pytest.raises(BadFile, match=r"movies.hdf5: cannot be read as HDF5 \(") as caught:
        inspect(movies)
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


def test_a_child_that_never_listens_is_given_up(monkeypatch, tmp_path):
    """What it asked for is more than a pipe holds."""
    speaking(monkeypatch, b'{"read": [0, 200000]}\n')
    path = write_good(tmp_path / "movies.hdf5", **arrays(2000))
    with LocalFile(path) as file, pytest.raises(BadFile, match=r"takes more than 0\.5 s"):
        inspect(file, seconds=0.5)


def test_facts_that_make_no_sense_are_a_refusal(movies):
    facts = inspect(movies)
    facts["columns"]["features"]["value"]["shape"] = [60.0, 8.0]
    for found in (facts, {}, {"columns": []}):
        with pytest.raises(BadFile, match=r"movies.hdf5: what was found in it makes no sense"):
            check_layout(found, "movies.hdf5", movies.size, 1e9)
