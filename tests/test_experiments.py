"""Experiments as docs/experiments.md describes them: queued sweeps, failures, resuming."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pmmo.fetching.synthetic import write_synthetic
from tests.clone import environment, run, wait_for_queue
from tests.file_server import FileServer

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(clone, tmp_path_factory) -> Path:
    """A copy of the clone: experiments here leave their names and their cache in it."""
    return Path(shutil.copytree(clone, tmp_path_factory.mktemp("experiments") / "pmmo"))


def same_as_committed(folder: Path) -> bool:
    return run(folder, "git", "status", "--short").strip() == ""


def put_back(folder: Path) -> None:
    run(folder, "git", "restore", ".")
    run(folder, "dvc", "checkout")
    assert same_as_committed(folder)


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
    assert len(names) <= 16
    assert same_as_committed(folder)


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
        ("data.source=absent.hdf5", "give it an absolute path"),
    ],
)
def test_a_failed_experiment_in_a_copy_leaves_the_workspace_alone(folder, setting, says):
    text = run(folder, "dvc", "exp", "run", "--temp", "-S", setting, "experiment", ok=False)
    assert says in text
    assert "This ran in a copy: the params.yaml of your workspace is as it was" in text
    assert same_as_committed(folder)


def test_a_late_failure_in_the_workspace_says_how_to_put_it_back(folder):
    """`elbo` of the same length passes `resolve`; git must not take the file for unchanged."""
    settings = ("-S", "elbo=v2", "-S", "data.memory_limit_gb=0.0001")
    text = run(folder, "dvc", "exp", "run", *settings, "experiment", ok=False)
    assert "fetch: " in text
    assert "params.yaml differs from the last commit" in text
    assert "git restore params.yaml" in text
    run(folder, "git", "restore", "params.yaml")
    assert yaml.safe_load((folder / "params.yaml").read_text())["elbo"] == "kl"
    put_back(folder)


def test_a_killed_experiment_goes_on_with_the_cycles_it_lacks(folder):
    """One cycle at a time; killed in the second of three, whose first is then kept."""
    words = ("dvc", "exp", "run", "-S", "cycles=3", "-S", "epochs=12", "experiment")
    alone = environment() | {"PMMO_WORKERS": "1"}
    store = folder / ".work/cycles"
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
            with contextlib.suppress(FileNotFoundError):  # gone with the finished row
                assert kept.read_bytes() == first  # it has its clock's seconds in it
            time.sleep(0.02)
    assert process.returncode == 0
    with (folder / ".work/live/experiment.csv").open() as file:  # the cycles trained now
        assert {line.split(",")[0] for line in file} == {"cycle", "1", "2"}
    assert len(list((folder / "runs/experiment").glob("predictions-*.safetensors"))) == 3
    put_back(folder)
