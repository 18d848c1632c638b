"""Experiments as docs/experiments.md describes them: queued sweeps, failures, resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pmmo.fetching.synthetic import write_synthetic
from tests.clone import KEPT, ROOT, edit_params, environment, run, wait_for_queue
from tests.file_server import FileServer

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(clone, tmp_path_factory) -> Path:
    """A copy of the clone: experiments here leave their names and their cache in it."""
    return Path(shutil.copytree(clone, tmp_path_factory.mktemp("experiments") / "pmmo"))


def same_as_committed(folder: Path) -> bool:
    return run(folder, "git", "status", "--short").strip() == ""


RESTORE, SWITCH, CHECKOUT = (
    "git restore --staged --worktree params.yaml dvc.lock reports",
    "git switch main",
    "dvc checkout --allow-missing",
)


def put_back(folder: Path) -> None:
    """As the documents say."""
    for command in (RESTORE, SWITCH, CHECKOUT):
        run(folder, *command.split())
    assert same_as_committed(folder)
    assert "up to date" in run(folder, "dvc", "status")


def test_the_way_back_is_that_of_the_documents():
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "docs/experiments.md"))
    assert f"$ {RESTORE}\n$ {CHECKOUT}\n" in readme
    assert SWITCH in readme
    assert f"$ {RESTORE}\n$ {SWITCH}\n$ {CHECKOUT}\n" in page


@pytest.mark.long
def test_a_queued_sweep_fetches_once_and_trains_only_the_system_under_study(folder, tmp_path):
    write_synthetic(tmp_path / "movies.hdf5", rows=120, seed=3)
    with FileServer(tmp_path / "movies.hdf5") as server:
        settings = ("-S", f"data.source={server.url}", "-S", "elbo=v1,v2", "-S", "penalty=none")
        run(folder, "dvc", "exp", "run", "--queue", "-n", "sweep", *settings, "experiment")
        wait_for_queue(folder)
        starts = [start for _, start, stop in server.requests if stop - start > 64 << 10]
    assert starts  # the columns did come from the server
    assert len(starts) == len(set(starts))  # and each of their bytes once
    text = run(folder, "dvc", "queue", "logs", "sweep-2")
    assert "Running stage 'train" not in text
    columns = run(
        folder, "dvc", "exp", "show", "--only-changed", "--drop", ".*/|Executor|Created", "--csv"
    ).splitlines()[0]
    names = columns.split(",")
    assert {"f1_weighted", "elbo", "penalty", "data.source"} <= set(names)
    assert len(names) <= 20  # readable in one terminal
    assert same_as_committed(folder)


@pytest.mark.long
def test_two_experiments_are_compared_and_their_curves_overlaid(folder):
    difference = run(folder, "dvc", "exp", "diff", "sweep-1", "sweep-2", "--json")
    changed = json.loads(difference)["params"]["params.yaml"]
    assert changed["elbo"] == {"old": "v1", "new": "v2"}
    plots = run(
        folder, "dvc", "plots", "diff", "sweep-1", "sweep-2", "--json",
        "--targets", "reports/experiment_curves.csv",
    )  # fmt: skip
    page = json.dumps(json.loads(plots))
    assert "sweep-1" in page
    assert "sweep-2" in page


@pytest.mark.long
def test_an_experiment_is_applied_or_becomes_a_branch(folder):
    run(folder, "dvc", "exp", "branch", "sweep-1", "v1-none")
    assert "v1-none" in run(folder, "git", "branch")
    run(folder, "dvc", "exp", "apply", "sweep-2")
    assert yaml.safe_load((folder / "params.yaml").read_text())["elbo"] == "v2"
    put_back(folder)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("elbo=v9", "resolve: elbo is 'v9'"),
        pytest.param("data.source=absent.hdf5", "give it an absolute path", marks=pytest.mark.long),
    ],
)
def test_a_failed_experiment_in_a_copy_leaves_the_workspace_alone(folder, setting, says):
    text = run(folder, "dvc", "exp", "run", "--temp", "-S", setting, "experiment", ok=False)
    assert says in text
    assert "This ran in a copy: the params.yaml of your workspace is as it was" in text
    assert same_as_committed(folder)


@pytest.mark.long
def test_a_late_failure_in_the_workspace_says_how_to_put_it_back(folder):
    """`elbo` of the same length passes `resolve`; git must not take the file for unchanged."""
    settings = ("-S", "elbo=v2", "-S", "data.memory_limit_gb=0.0001")
    text = run(folder, "dvc", "exp", "run", *settings, "experiment", ok=False)
    assert "fetch: " in text
    assert "params.yaml differs from the last commit" in text
    command = "git restore --staged --worktree params.yaml"
    assert command in text
    run(folder, *command.split())
    assert yaml.safe_load((folder / "params.yaml").read_text())["elbo"] == "kl"
    put_back(folder)


@pytest.mark.long
def test_a_killed_experiment_goes_on_with_the_cycles_it_lacks(folder):
    """One cycle at a time; killed in the second of three, whose first is then kept."""
    words = ("dvc", "exp", "run", "-S", "cycles=3", "-S", "epochs=12", "experiment")
    alone = environment() | {"PMMO_WORKERS": "1"}
    store = folder / ".work/cycles"
    shutil.rmtree(store)  # DVC has these rows
    with subprocess.Popen(words, cwd=folder, env=alone, start_new_session=True) as process:
        while process.poll() is None and not list(store.glob("*/cycle-0")):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (kept,) = store.glob("*/cycle-0/cycle.json")
    first = kept.read_bytes()
    assert not (folder / "runs/experiment").exists()
    with subprocess.Popen(words, cwd=folder, env=alone, start_new_session=True) as process:
        while process.poll() is None:
            time.sleep(0.02)
    assert process.returncode == 0
    assert kept.read_bytes() == first  # it has its clock's seconds in it
    name = kept.parents[1].joinpath("row").read_text().strip()
    assert f"md5: {name}.dir" in (folder / "dvc.lock").read_text()  # as DVC calls the row
    run(folder, "dvc", "repro", "-f", "-s", "train@gmu")
    assert not kept.exists()  # DVC has that row
    with (folder / ".work/live/experiment.csv").open() as file:  # the cycles trained now
        assert {line.split(",")[0] for line in file} == {"cycle", "1", "2"}
    assert len(list((folder / "runs/experiment").glob("predictions-*.safetensors"))) == 3
    put_back(folder)


@pytest.mark.long
@pytest.mark.parametrize("epochs", [3000, 9999])  # the second one from where the first was left
def test_a_killed_experiment_leads_back(folder, epochs):
    """The user's code stays, what the experiment changed goes, and the branch is the old one."""
    before = {p: p.read_bytes() for p in (folder / "runs/experiment").iterdir()}
    page = folder / "CHANGELOG.md"
    committed = page.read_text()
    page.write_text(committed + "mine\n")
    words = ("dvc", "exp", "run", "-S", f"epochs={epochs}", "experiment")
    live = folder / ".work/live/experiment.csv"
    live.unlink(missing_ok=True)
    with subprocess.Popen(
        words, cwd=folder, env=environment(), start_new_session=True, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (live.exists() and live.stat().st_size > 60):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert str(epochs) in (folder / "params.yaml").read_text()
    for command in (RESTORE, SWITCH, CHECKOUT):
        run(folder, *command.split())
    assert page.read_text() == committed + "mine\n"
    page.write_text(committed)
    assert same_as_committed(folder)
    assert run(folder, "git", "branch", "--show-current").strip() == "main"
    assert {p: p.read_bytes() for p in (folder / "runs/experiment").iterdir()} == before
    assert "up to date" in run(folder, "dvc", "status")


@pytest.mark.long
def test_a_second_clone_has_all_of_a_project_from_which_a_row_was_removed(folder, tmp_path):
    edit_params(folder, lambda tree: tree["variants"].pop("gmu"))
    text = run(folder, "dvc", "repro")
    assert "runs/rows/gmu is no row of params.yaml; moved to .work/former-rows" in text
    assert (folder / ".work/former-rows/gmu/summary.json").exists()
    run(folder, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    run(folder, "dvc", "push")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "one row")
    run(tmp_path, "git", "init", "-q", "--bare", "origin")
    run(folder, "git", "remote", "add", "origin", str(tmp_path / "origin"))
    run(folder, "git", "push", "-q", "origin", "main")
    run(folder, "dvc", "exp", "run", "-n", "shared", "-S", "elbo=v1", "experiment")
    run(folder, "dvc", "exp", "push", "origin", "shared")
    run(tmp_path, "git", "clone", "-q", "-b", "main", "origin", "second")
    second = tmp_path / "second"
    run(second, "dvc", "pull")
    assert "up to date" in run(second, "dvc", "status")
    assert "Running stage" not in run(second, "dvc", "repro")
    assert same_as_committed(second)
    assert "Running stage" not in run(second, "dvc", "repro", "--pull")
    run(second, "dvc", "exp", "pull", "origin", "shared")
    run(second, "dvc", "exp", "apply", "shared")
    found = json.loads((second / "runs/experiment/settings.json").read_text())
    assert found["elbo"] == "v1"


@pytest.mark.long
def test_apply_without_the_variants_says_that_it_failed_and_has_applied(clone, tmp_path):
    """As docs/experiments.md says: all that is missing are rows that this clone has not trained."""
    run(tmp_path, "git", "clone", "-q", str(clone), "new")
    new = tmp_path / "new"
    run(new, "dvc", "exp", "run", "-n", "v2", "-S", "elbo=v2", "experiment")
    for command in (RESTORE, CHECKOUT):
        run(new, *command.split())
    assert same_as_committed(new)
    text = run(new, "dvc", "exp", "apply", "v2", ok=False)
    assert "Checkout failed for following targets" in text
    missing = [line for line in text.splitlines() if line.startswith("runs/")]
    assert sorted(missing) == sorted(f"runs/rows/{row}" for row in KEPT)
    assert yaml.safe_load((new / "params.yaml").read_text())["elbo"] == "v2"
    assert json.loads((new / "runs/experiment/settings.json").read_text())["elbo"] == "v2"
    run(new, *CHECKOUT.split())
    assert "experiment" not in json.loads(run(new, "dvc", "status", "--json"))


@pytest.mark.long
def test_a_registered_model_is_had_without_a_clone_and_predicts(folder, tmp_path):
    run(folder, "gto", "register", "pmmo", "--version", "v1.0.0")
    run(tmp_path, "dvc", "artifacts", "get", str(folder), "pmmo", "--out", "model")
    trained = folder / "runs/rows/pmmo-kl-l2"
    for file in trained.iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes()
    model, movies = str(tmp_path / "model"), "data/fetched/movies.hdf5"
    said = run(folder, sys.executable, "-m", "pmmo", "predict", model, movies, "-o", "new.csv")
    assert "pmmo-kl-l2" in said
    (folder / "new.csv").unlink()
