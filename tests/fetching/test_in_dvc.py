"""Sources as DVC meets them: what it deletes, and what it stores of a secret.

A clone without training: resolve, fetch and extract alone.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clone import ROOT, edit_params, run
from tests.file_server import FileServer
from tests.movie_files import write_good

pytestmark = pytest.mark.timeout(600)
SECRET = "kEy7f3a9"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A committed clone in which resolve has run."""
    folder = tmp_path_factory.mktemp("project") / "pmmo"
    for name in ("pmmo", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "repro", "-q", "resolve")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "clone")
    return folder


@pytest.fixture(autouse=True)
def _as_it_was(project):
    yield
    run(project, "git", "checkout", "-f", ".")
    run(project, "git", "clean", "-qfd")


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> Path:
    return write_good(tmp_path_factory.mktemp("movies") / "movies.hdf5")


def all_of(folder: Path) -> dict[str, bytes]:
    """Every file, and every object of git: reachable or not, they are compressed in the files."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    command = ["git", "cat-file", "--batch-all-objects", "--batch"]
    objects = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    return found | {"objects of git": objects}


def places_of(secret: str, folder: Path) -> list[str]:
    return [name for name, content in all_of(folder).items() if secret.encode() in content]


@pytest.mark.parametrize("where", [[], pytest.param(["--temp"], marks=pytest.mark.long)])
def test_a_secret_by_name_is_sent_and_stored_nowhere(project, movies, monkeypatch, where):
    monkeypatch.setenv("MOVIES_KEY", SECRET)
    with FileServer(movies) as server:
        source = f'data.source="{server.url}?download=1&sig=$MOVIES_KEY"'
        said = run(project, "dvc", "exp", "run", *where, "-S", source, "extract")
        assert all(path.endswith(f"&sig={SECRET}") for path, _, _ in server.requests)
        assert len(server.requests) > 1
    shown = run(project, "dvc", "exp", "show", "--csv")
    assert "MOVIES_KEY" in shown
    assert SECRET not in said + shown
    assert "sig=$MOVIES_KEY" in all_of(project)["objects of git"].decode(errors="replace")
    assert places_of(SECRET, project) == []


@pytest.mark.long
def test_a_secret_whose_server_fails_is_stored_nowhere(project, monkeypatch):
    """With a proxy that has a password, too."""
    monkeypatch.setenv("MOVIES_KEY", SECRET)
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:1")
    source = 'data.source="http://example.invalid/$MOVIES_KEY?$MOVIES_KEY"'
    said = run(project, "dvc", "exp", "run", "-S", source, "extract", ok=False)
    assert "the proxy http://127.0.0.1:1 set by the environment" in said
    assert SECRET not in said
    assert places_of(SECRET, project) == []


def test_a_secret_in_the_open_is_refused_and_gone_with_what_the_message_says(project):
    source = f'data.source="https://example.invalid/f?sig={SECRET}"'
    said = run(project, "dvc", "exp", "run", "-S", source, "extract", ok=False)
    assert "resolve: data.source may hold a secret" in said
    assert SECRET not in said
    assert "    git restore --staged --worktree params.yaml" in said
    assert places_of(SECRET, project) != []  # what is left is in params.yaml, as -S has written it
    run(project, "git", "restore", "--staged", "--worktree", "params.yaml")
    files = [name for name in places_of(SECRET, project) if name != "objects of git"]
    assert files == []
    everything = run(
        project, "git", "rev-list", "--all", "--reflog", "--objects", "--no-object-names"
    )
    known = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=project, input=everything, capture_output=True,
        text=True, errors="replace", check=True,
    ).stdout  # fmt: skip
    assert SECRET not in known
    run(project, "git", "gc", "-q", "--prune=now")
    assert places_of(SECRET, project) == []


def test_a_repro_deletes_no_file_that_is_named_as_the_source(project, movies):
    """Nor one in the place of an out; the next test has that one as the source."""
    names = ("settings/own.hdf5", "data/fetched/movies.hdf5")
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(movies, project / name)
    edit_params(project, lambda tree: tree["data"].update(source=names[0]))
    said = run(project, "dvc", "repro", "extract", ok=False)
    assert f"data.source: {names[0]} is, lies in or holds " in said
    for name in names:
        assert (project / name).read_bytes() == movies.read_bytes()
        (project / name).unlink()


def test_an_experiment_from_a_file_that_dvc_deletes_is_refused(project, movies):
    """`dvc exp run` itself puts every out in order before it runs a stage; the message says so."""
    shutil.copytree(movies.parent, project / "data/fetched", dirs_exist_ok=True)
    source = "data.source=data/fetched/movies.hdf5"
    said = run(project, "dvc", "exp", "run", "-S", source, "extract", ok=False)
    assert "data.source: data/fetched/movies.hdf5 is, lies in or holds " in said
    assert "`dvc exp run` even before it runs a stage" in said
    assert "Running stage 'fetch'" not in said


def test_a_file_beside_the_outs_is_taken_and_stays(project, movies):
    """The names that one would choose first are no outs."""
    names = ("data/movies.hdf5", "data/own.hdf5")
    (project / "data").mkdir(exist_ok=True)
    for name in names:
        shutil.copy(movies, project / name)
    run(project, "dvc", "exp", "run", "-S", f"data.source={names[0]}", "extract")
    for name in names:
        assert (project / name).read_bytes() == movies.read_bytes()
