"""Every command of README.md and docs/ is run, in their order, in a clone of tiny sizes.

A command that cannot run here as it stands has a stand-in below, with the reason beside it.
"""

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmmo.synthetic import write_synthetic
from tests.clone import ROOT, environment, run

pytestmark = pytest.mark.timeout(900)

DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
WAIT = "(wait for the queue)"
STAND_INS = {
    # they set up a virtual environment; the clone was made by `dvc repro`, and this is a test
    "make repro": "make -n repro",
    "make test": "make -n test",
    # the published file needs a network; the clone's paper scale has tiny sizes
    "dvc exp run -S scale=paper": "dvc exp run -S scale=paper -S data.source=/path/to/movies.hdf5",
    # six runs where two show the same
    "dvc exp run --queue -n sweep -S 'elbo=v1,v2,kl' -S 'penalty=none,l2' experiment": (
        "dvc exp run --queue -n sweep -S elbo=v1 -S 'penalty=none,l2' experiment"
    ),
    # returns before the experiments are done, which later commands need
    "dvc queue start": WAIT,
}
NOT_RUN: dict[
    str, str
] = {}  # command -> why no test can run it: a tool or machine that is not here
FAILS = {  # a command that shows its message
    "dvc exp run -S elbo=v9",
    "dvc exp run -S elbo=v9 experiment",
    "dvc exp run --temp -S elbo=v9 experiment",
}


def commands(document: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of the document's console blocks, and the output shown below it."""
    text = (ROOT / document).read_text()
    for block in re.findall(r"^```console\n(.*?)^```", text, re.S | re.M):
        for entry in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.M)[1:]:
            first, *shown = entry.rstrip().split("\n")
            yield re.sub(r"\s+#.*", "", first).strip(), shown


@pytest.fixture(scope="module")
def folder(clone, tmp_path_factory) -> Path:
    """A copy of the clone: the documents leave experiments and branches in it."""
    return Path(shutil.copytree(clone, tmp_path_factory.mktemp("docs") / "pmmo"))


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> Path:
    """A user's own file."""
    path = tmp_path_factory.mktemp("own") / "movies.hdf5"
    write_synthetic(path, rows=120, seed=5)
    return path


def wait_for_queue(folder: Path) -> None:
    run(folder, "dvc", "queue", "start")
    for _ in range(600):
        status = run(folder, "dvc", "queue", "status")
        if "Running" not in status and "Queued" not in status:
            return
        time.sleep(0.5)
    raise AssertionError(status)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if list(commands(name))])
def test_every_command_does_what_the_document_says(folder, movies, document):
    for command, shown in commands(document):
        if command in NOT_RUN:
            continue
        here = STAND_INS.get(command, command)
        if here == WAIT:
            wait_for_queue(folder)
            continue
        here = re.sub(r"/(path/to|where/it/is)/[\w.-]+\.hdf5", str(movies), here)
        done = subprocess.run(
            here, shell=True, cwd=folder, env=environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == (command in FAILS), f"$ {here}\n{said}"
        if command in FAILS:
            assert [line for line in shown if line not in said] == [], said
    run(folder, "git", "restore", ".")
    run(folder, "dvc", "checkout", "--allow-missing")


def test_every_stand_in_is_of_a_documented_command():
    documented = {command for name in DOCUMENTS for command, _ in commands(name)}
    assert {*STAND_INS, *FAILS, *NOT_RUN} - documented == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_of_the_repository(document):
    text = (ROOT / document).read_text()
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [t for t in targets if not ((ROOT / document).parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_picture_is_made_by_the_pipeline(document):
    made = (ROOT / "dvc.yaml").read_text()
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / document).read_text()):
        name = (ROOT / document).parent.joinpath(picture).resolve().relative_to(ROOT.resolve())
        assert f"- {name}:" in made, picture


def test_commands_are_spelt_so_that_a_shell_takes_them():
    for document in DOCUMENTS:
        for command, _ in commands(document):
            assert shlex.split(command), document
