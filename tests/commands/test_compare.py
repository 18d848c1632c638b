"""`pmmo compare`: rows, revisions, the workspace, and what is said where something is missing."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from dvc.repo import Repo

from pmmo.__main__ import main
from pmmo.commands.compare import Place, compare_places, parse
from pmmo.core.errors import PmmoError
from tests.clone import run
from tests.fake_runs import VARIANTS, write_all, write_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")  # DVC's own
ROOT = Path(__file__).parents[2]
LABELS = dict(VARIANTS)
ROWS = [(name, LABELS[name]) for name in ("gmu", "gmu-wide", "pmmo-kl-l2")]
TRACKED = ["data/tensors", "runs/experiment", *(f"runs/rows/{name}" for name, _ in ROWS)]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("gmu", Place(None, "gmu")),
        ("experiment", Place(None, "experiment")),
        ("workspace", Place(None, "experiment")),
        ("workspace:gmu", Place(None, "gmu")),
        (":gmu", Place(None, "gmu")),
        ("main", Place("main", "experiment")),
        ("HEAD~2:gmu", Place("HEAD~2", "gmu")),
        ("gmu:", Place("gmu", "experiment")),  # a branch that is called as a row
    ],
)
def test_what_a_name_stands_for(text, place):
    assert parse(text, ["gmu", "mmo"]) == place


def study(folder: Path, row: str) -> None:
    """Make a row's results those of the system under study."""
    shutil.rmtree(folder / "runs/experiment", ignore_errors=True)
    shutil.copytree(folder / "runs/rows" / row, folder / "runs/experiment")


def commit(folder: Path, tag: str) -> None:
    with Repo(folder) as repo:
        repo.add([str(folder / path) for path in TRACKED])
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", tag)
    run(folder, "git", "tag", tag)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two revisions: the system under study is the GMU in one and wide in the next."""
    folder = tmp_path_factory.mktemp("project")
    write_all(folder, movies=200, cycles=2, epochs=6, variants=ROWS)
    shutil.copy(ROOT / "params.yaml", folder)
    run(folder, "git", "init", "-q", "-b", "main")
    Repo.init(str(folder)).close()
    for tag, row in (("narrow", "gmu"), ("wide", "gmu-wide")):
        study(folder, row)
        commit(folder, tag)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch) -> Path:
    """A copy to be changed, which is the current folder."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def scores(first: str, second: str, csv: Path) -> pd.DataFrame:
    compare_places(first, second, csv, False)
    return pd.read_csv(csv).set_index("score")


def test_two_rows_two_revisions_and_a_row_of_a_revision_agree(folder, tmp_path):
    pairs = [
        ("gmu", "gmu-wide"),
        ("narrow", "wide"),
        ("narrow", "workspace"),
        ("HEAD~1", "HEAD"),
        ("wide:gmu", "wide:experiment"),
    ]
    tables = [scores(*pair, tmp_path / "pair.csv") for pair in pairs]
    numbers = ["first_mean", "second_mean", "difference", "low", "high", "level"]
    for table in tables:
        pd.testing.assert_frame_equal(table[numbers], tables[0][numbers])
    assert tables[1].loc["f1_weighted", "first"] == "narrow"
    assert tables[0]["difference"].abs().min() > 0


def test_results_that_are_not_checked_out_come_from_the_cache(folder, tmp_path):
    before = scores("gmu", "gmu-wide", tmp_path / "a.csv")
    for path in TRACKED:
        shutil.rmtree(path)
    pd.testing.assert_frame_equal(scores("gmu", "gmu-wide", tmp_path / "b.csv"), before)
    assert not Path("runs/rows/gmu").exists()  # nothing is checked out


def test_without_the_cache_it_names_the_command_that_brings_it(folder, tmp_path):
    before = scores("narrow", "wide", tmp_path / "a.csv")
    run(folder, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    run(folder, "dvc", "push", "--all-commits")
    shutil.rmtree(".dvc/cache")
    command = "dvc fetch --all-commits"
    with pytest.raises(PmmoError, match=rf"^narrow: its results are not in DVC's .*`{command}`"):
        compare_places("narrow", "wide", None, False)
    run(folder, *command.split())
    pd.testing.assert_frame_equal(scores("narrow", "wide", tmp_path / "b.csv"), before)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsense", "'nonsense' is neither a row of params.yaml nor a revision or an experiment"),
        ("narrow:none", "narrow has no results of the row 'none'"),
        ("mmo", "workspace has no results of the row 'mmo'"),
    ],
)
def test_a_name_of_nothing_is_refused(folder, name, says):
    with pytest.raises(PmmoError, match=says):
        compare_places(name, "gmu", None, False)


def test_a_revision_on_other_movies_is_refused(folder):
    write_all(folder, movies=240, cycles=2, epochs=6, variants=ROWS)
    study(folder, "gmu")
    with pytest.raises(PmmoError, match=r"narrow was tested on 60 movies, workspace on 72"):
        compare_places("narrow", "workspace", None, False)


def test_the_command_prints_writes_and_ends_with_a_code(folder, tmp_path, monkeypatch, capsys):
    """The literal row of the simulation has less skill than the GMU."""
    movies = json.loads(Path("data/tensors/movies.json").read_text())
    assert movies["splits"]["test"] == [140, 200]

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["pmmo", "compare", *words])
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1
        return 0

    path = tmp_path / "table.csv"
    assert call("narrow", "wide", "--csv", str(path)) == 0
    said = capsys.readouterr().out
    assert "wide minus narrow" in said
    assert len(path.read_text().splitlines()) == 5
    assert call("gmu", "gmu", "--exit-code") == 3
    assert call("nonsense") == 1
    weak(folder)
    assert call("gmu-wide", "gmu", "--exit-code") == 0
    assert call("gmu", "gmu-wide", "--exit-code") == 4
    assert call("gmu", "gmu-wide") == 0


def weak(folder: Path) -> None:
    """Make `gmu-wide` a row that knows little."""
    import numpy as np
    from safetensors.numpy import load_file

    from pmmo.published.mmimdb import GENRE_COUNTS
    from tests import fake_runs

    labels = load_file(folder / "data/tensors/genres.safetensors")["genres"]
    splits = json.loads((folder / "data/tensors/movies.json").read_text())["splits"]
    truth = {name: labels[slice(*bounds)] for name, bounds in splits.items()}
    noise = {name: np.zeros(found.shape) for name, found in truth.items()}
    fake_runs.SKILL["gmu-wide"] = 0.2
    try:
        write_run(folder / "runs/rows/gmu-wide", *ROWS[1], truth, GENRE_COUNTS, 2, 6, noise)
    finally:
        del fake_runs.SKILL["gmu-wide"]


def test_a_csv_file_that_cannot_be_written_is_refused_first(folder, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(PmmoError, match="is a folder, which is not replaced"):
        compare_places("gmu", "gmu-wide", tmp_path / "folder.csv", False)
