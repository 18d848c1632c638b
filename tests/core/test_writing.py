"""Outputs are whole or absent, and nothing else is replaced, followed or left behind."""

import ast
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pmmo.core.errors import PmmoError
from pmmo.core.progress import Monitor
from pmmo.core.writing import growing, growing_folder, write_bytes, write_json, write_text
from tests.disks import small_disk

ROOT = Path(__file__).parents[2]


def fill(path: Path, content: str) -> None:
    """A file, by the helper for files."""
    with growing(path) as new:
        new.write_text(content, encoding="utf-8")


def fill_folder(path: Path, content: str) -> None:
    """A folder with files in it, by the helper for folders."""
    with growing_folder(path) as new:
        (new / "deep").mkdir()
        for name in ("a", "b", "deep/c"):
            (new / name).write_text(content, encoding="utf-8")


def test_a_file_appears_with_its_folder_and_nothing_else(tmp_path):
    path = tmp_path / "reports" / "x.json"
    write_json(path, {"genre": "Café"})
    write_json(path, {"genre": "λ"})
    assert path.read_bytes() == '{\n "genre": "λ"\n}\n'.encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    path = tmp_path / "runs" / "gmu"
    fill_folder(path, "old")
    (path / "stale").touch()
    fill_folder(path, "new")
    assert {file.name for file in path.rglob("*")} == {"a", "b", "deep", "c"}
    assert (path / "deep/c").read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, PmmoError])
@pytest.mark.parametrize("grow", [growing, growing_folder])
def test_a_failure_on_the_way_leaves_what_was_there(tmp_path, grow, error):
    path = tmp_path / "output"
    (fill if grow is growing else fill_folder)(path, "before")
    before = sorted(tmp_path.rglob("*"))

    def fail() -> None:
        with grow(path) as new:
            (new if grow is growing else new / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["n" * 255, "ä b\n*[?]", "old", ".hidden", "-o"])
def test_any_name_that_a_file_may_have(tmp_path, name):
    write_text(tmp_path / name, "x")
    fill_folder(tmp_path / "in" / name, "x")
    fill_folder(tmp_path / "in" / name, "y")
    assert {path.name for path in tmp_path.iterdir()} == {name, "in"}
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]


# ---- what is at the output's name


def make_link(path: Path) -> None:
    path.with_name("victim").write_text("mine")
    path.symlink_to("victim")


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the right to make a device")


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("mine")


IN_THE_WAY = {
    "link": make_link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "device": make_device,
    "pipe": os.mkfifo,
    "folder": make_folder,
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_no_file_is_neither_replaced_nor_followed(tmp_path, kind):
    path = tmp_path / "out.csv"
    IN_THE_WAY[kind](path)
    before = [(file, file.lstat()) for file in sorted(tmp_path.rglob("*"))]
    with pytest.raises(PmmoError, match=r"out\.csv: is a \w+.*, which is not replaced"):
        write_text(path, "x")
    assert [(file, file.lstat()) for file in sorted(tmp_path.rglob("*"))] == before


def test_what_is_no_folder_is_neither_replaced_nor_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    for name in ("link", "mine/file"):
        with pytest.raises(PmmoError, match="which is not replaced"):
            fill_folder(tmp_path / name, "x")
    assert (tmp_path / "link").is_symlink()
    assert [(file.name, file.read_text()) for file in (tmp_path / "mine").iterdir()] == [
        ("file", "mine")
    ]


def test_it_is_looked_at_again_when_the_file_is_whole(tmp_path):
    """A link that appears during long work."""
    path = tmp_path / "out.csv"

    def write() -> None:
        with growing(path) as new:
            new.write_text("x")
            make_link(path)

    with pytest.raises(PmmoError, match="is a link to victim"):
        write()
    assert path.with_name("victim").read_text() == "mine"


@pytest.mark.parametrize("name", ["x.csv.tmp", "x.csv.partial", ".x.csv.tmp", "x.tmp"])
def test_a_file_of_the_users_with_a_temporary_name_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    (tmp_path / "link.csv.tmp").symlink_to(name)
    write_text(tmp_path / "x.csv", "x")
    write_text(tmp_path / "link.csv", "x")
    assert (tmp_path / name).read_text() == "mine"


def test_who_may_read_a_file_stays_as_it_was(tmp_path):
    path = tmp_path / "x.csv"
    write_text(path, "x")
    usual = stat.S_IMODE(path.stat().st_mode)
    (tmp_path / "plain").touch()
    assert usual == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    path.chmod(0o600)
    write_text(path, "y")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_names_of_the_same_file_keep_their_content(tmp_path):
    """As DVC's cache, which shares files with the workspace by hard links."""
    write_text(tmp_path / "x", "old")
    (tmp_path / "cache").hardlink_to(tmp_path / "x")
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "cache").read_text() == "old\n"


# ---- two writers


@pytest.mark.parametrize("write", [fill, fill_folder])
def test_of_many_writers_one_wins_whole(tmp_path, write):
    """Nothing is mixed, nobody fails, nothing is left."""
    path, failures = tmp_path / "output", []

    def again_and_again(content: str) -> None:
        try:
            for _ in range(20):
                write(path, content)
        except Exception as error:
            failures.append(error)

    writers = [threading.Thread(target=again_and_again, args=(c * 50_000,)) for c in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert len({file.read_text() for file in files}) == 1
    assert len(files) == (1 if write is fill else 3)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next_and_a_living_ones_stays(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from pmmo.core.writing import growing\n"
        "with growing(Path(sys.argv[1])) as new:\n"
        "    new.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "x.csv"
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left != path
    with growing(path) as new:
        assert not left.exists()
        write_text(tmp_path / "y.csv", "y")
        new.write_text("x")
    assert {file.name for file in tmp_path.iterdir()} == {"x.csv", "y.csv"}


def test_where_there_are_no_locks_nothing_is_taken_for_a_left_over(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with growing(tmp_path / "x") as new:
        new.write_text("x")
        write_text(tmp_path / "y", "y")
    assert (tmp_path / "x").read_text() == "x"


# ---- no room, no right


@pytest.mark.parametrize("write", [fill, fill_folder])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_one(tmp_path, write):
    with small_disk(tmp_path / "full", "size=1m"):
        path = tmp_path / "full" / "output"
        write(path, "before")
        with pytest.raises(PmmoError, match=r"output: cannot be written \(No space left") as caught:
            write(path, "x" * 2_000_000)
        assert "\n" not in str(caught.value)
        files = [path] if path.is_file() else list(path.rglob("[abc]"))
        assert {file.read_text() for file in files} == {"before"}
        assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PmmoError, match=r"x: cannot be written \(Not a directory\)"):
        write_bytes(tmp_path / "file" / "deep" / "x", b"")


# ---- the code


def test_every_write_of_the_project_goes_through_the_helper():
    """Who opens a file to write, or makes one, does so in one of these places, for its reason."""
    known = {
        "pmmo/core/writing.py",
        # into what `growing` or `growing_folder` gave
        "pmmo/data/extract.py",
        "pmmo/fetching/assembly.py",
        "pmmo/hdf5/writer.py",
        "pmmo/own_movies/import_table.py",
        "pmmo/own_movies/predict.py",
        # grows for as long as a row trains, to be watched; a new file each time
        "pmmo/core/progress.py",
        # parts of a download, kept between runs; never through a link
        "pmmo/fetching/download.py",
        # a pipe
        "pmmo/hdf5/inspection.py",
        "pmmo/own_movies/parquet.py",
        # the null device
        "pmmo/__main__.py",
    }
    found = set()
    for path in sorted([*(ROOT / "pmmo").rglob("*.py"), *(ROOT / "stages").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and writes(node):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == known


def writes(call: ast.Call) -> bool:
    """Whether a call opens a file to write, or is `path.write_text` or `path.write_bytes`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    if name in ("write_text", "write_bytes"):
        return isinstance(call.func, ast.Attribute)
    texts = [item.value for item in call.args if isinstance(item, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and re.fullmatch("[rwaxb+t]+", text)]
    return name == "open" and any(set(mode) & set("wax+") for mode in modes)


def test_live_curves_are_a_new_file_wherever_a_link_leads(tmp_path, monkeypatch):
    monkeypatch.setattr("pmmo.core.progress.LIVE", tmp_path / "live")
    (tmp_path / "live").mkdir()
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "live/gmu.csv").symlink_to(tmp_path / "victim")
    with Monitor("gmu", 1) as monitor:
        monitor.epoch(0, 0.5)
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "live/gmu.csv").read_text().endswith("0,1,0.5000\n")
