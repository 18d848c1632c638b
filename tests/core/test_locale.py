"""Files are UTF-8 whatever the locale says, and printing never fails."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.movie_files import write_good

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def latin1(tmp_path_factory) -> dict[str, str]:
    """The environment of a Latin-1 locale; skips where none can be made."""
    folder = tmp_path_factory.mktemp("locales")
    name = "en_US.ISO-8859-1"
    if shutil.which("localedef"):
        make = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / name)]
        subprocess.run(make, capture_output=True, check=False)
    found = {"LOCPATH": str(folder), "LC_ALL": name, "PYTHONUTF8": "0"}
    ask = [sys.executable, "-c", "import locale; print(locale.getpreferredencoding())"]
    said = subprocess.run(ask, env=os.environ | found, capture_output=True, text=True, check=True)
    if said.stdout.strip() != "ISO-8859-1":
        pytest.skip("needs a Latin-1 locale")
    return found


def run(folder: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    known = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-X", "warn_default_encoding", "-m", *words]
    return subprocess.run(command, cwd=folder, env=known | env, capture_output=True, check=False)


def stages(folder: Path, env: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """What resolve, fetch, extract and `pmmo params` print, and all that they write."""
    folder.mkdir()
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "λ" in params  # of a label
    (folder / "params.yaml").write_text(
        params.replace("source: auto", f"source: {folder.parent}/movies.hdf5"), encoding="utf-8"
    )
    said = ""
    commands = (["stages.resolve"], ["stages.fetch"], ["stages.extract"], ["pmmo", "params", "gmu"])
    for words in (*commands, ["pmmo", "params", "pmmo-kl-l2"]):
        done = run(folder, env, *words)
        assert done.returncode == 0, done.stderr
        said += (done.stdout + done.stderr).decode("latin-1")
    files = (file for file in folder.rglob("*") if file.is_file())
    return said, {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def own_warnings(said: str) -> list[str]:
    """Of the default encoding, in this project's code."""
    lines = [line for line in said.splitlines() if "EncodingWarning" in line]
    return [line for line in lines if f"{ROOT}/pmmo" in line or f"{ROOT}/stages" in line]


@pytest.fixture(scope="module")
def utf8(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("utf8")
    write_good(folder / "movies.hdf5", genre_names=["Café", "λ", "Drama"])
    said, files = stages(folder / "utf8", {"PYTHONUTF8": "1"})
    assert own_warnings(said) == []
    return folder, files


def test_in_ascii_the_files_are_the_same_and_printing_does_not_fail(utf8):
    folder, files = utf8
    said, found = stages(folder / "ascii", ASCII)
    same_but_for_the_folder(files, found)
    assert "\\u03bb" in said
    assert own_warnings(said) == []


def test_in_latin_1_the_files_are_the_same_and_printing_does_not_fail(utf8, latin1):
    folder, files = utf8
    said, found = stages(folder / "latin1", latin1)
    same_but_for_the_folder(files, found)
    assert "\\u03bb" in said
    assert own_warnings(said) == []


def same_but_for_the_folder(files: dict[str, bytes], found: dict[str, bytes]) -> None:
    assert found == files
    assert "λ".encode() in found["settings/reports.json"]
    assert {"data/fetched/movies.hdf5", "data/tensors/movies.json"} <= set(found)


def test_an_error_in_ascii_is_one_message(tmp_path):
    (tmp_path / "params.yaml").write_text("scale: λ\n", encoding="utf-8")
    done = run(tmp_path, ASCII, "stages.resolve")
    assert done.returncode == 1
    assert done.stderr.decode("ascii").startswith("resolve: params.yaml lacks")


OPENING = {"open", "read_text", "write_text", "run", "Popen", "check_output", "fdopen"}


def test_every_text_that_is_read_or_written_says_its_encoding():
    silent = []
    for path in sorted([*(ROOT / "pmmo").rglob("*.py"), *(ROOT / "stages").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and is_silent(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []


def is_silent(call: ast.Call) -> bool:
    """Whether a call opens text, or talks to a process in text, in the locale's encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    options = {item.arg: item.value for item in call.keywords}
    if name not in OPENING or "encoding" in options:
        return False
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & set(options))
    if name == "read_text":
        return not call.args
    if name == "write_text":  # our own takes a path and a text
        return isinstance(call.func, ast.Attribute)
    modes = [item.value for item in call.args if isinstance(item, ast.Constant)]
    other = ast.unparse(call.func) in ("os.open", "h5py.h5a.open", "h5py.h5o.open", "Image.open")
    return not other and not any("b" in mode for mode in modes if isinstance(mode, str))
