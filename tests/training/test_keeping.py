"""Cycles that are finished: kept, checked, taken up, and dropped when DVC has their row."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyro
import pytest
import torch
import yaml
from filelock import FileLock

from pmmo.config.settings import save_settings
from pmmo.core import writing
from pmmo.core.errors import PmmoError
from pmmo.core.inputs import Inputs
from pmmo.core.writing import growing_folder
from pmmo.training import cycles, finished_rows
from pmmo.training import variant as runs
from pmmo.training.cycle_store import load_cycle
from pmmo.training.cycles import run_cycles
from pmmo.training.finished_rows import drop_recorded, mark_finished, name_in_cache
from pmmo.training.local_processes import undisturbed
from pmmo.training.loop import train_cycles
from tests.disks import small_disk
from tests.training.test_training import SPLITS, row, same_cycles, write_data

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_the_stage_runs():
    """Pyro's checks are off in the training stage (prepare_process); restored afterwards."""
    precision = torch.get_float32_matmul_precision()
    with pyro.validation_enabled(False):
        yield
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a row's settings and data, as the stage finds them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data/tensors")
    (tmp_path / "settings").mkdir()
    save_settings(row("gmu"), tmp_path / "settings/gmu.json")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def train(output: str = "runs/rows/gmu", inputs: Inputs | None = None) -> dict:
    return runs.train_row(
        Path("settings/gmu.json"), Path("data/tensors"), Path(output), inputs=inputs
    )


# ---- what changes while a row trains


@pytest.mark.parametrize(
    "name", ["data/tensors/genres.safetensors", "settings/gmu.json", "params.yaml"]
)
def test_a_row_whose_inputs_change_is_refused_and_its_cycles_are_kept(project, monkeypatch, name):
    Path("params.yaml").write_text("elbo: kl\n")
    before = Path(name).read_bytes()
    trained = []

    def edited(settings, splits, group, report=None):
        trained.extend(group)
        if group == [1]:
            Path(name).write_bytes(before + b" \nmore: 1")
        return train_cycles(settings, splits, group, report)

    monkeypatch.setattr(cycles, "train_cycles", edited)
    inputs = Inputs.of_stage("train@gmu")
    with pytest.raises(PmmoError, match=rf"^{name}: changed while this stage ran.*cycles"):
        train(inputs=inputs)
    assert not Path("runs/rows/gmu").exists()
    Path(name).write_bytes(before)
    train(inputs=Inputs.of_stage("train@gmu"))
    assert trained == [0, 1]  # each once
    assert Path("runs/rows/gmu/summary.json").exists()


def test_nothing_is_trained_on_what_changed_while_it_was_loaded(project, monkeypatch):
    """Else the cycles would be kept under the key of something else."""

    def load(*arguments):
        splits = runs_load(*arguments)
        with Path("data/tensors/movies.json").open("a") as file:
            file.write(" ")
        return splits

    runs_load = runs.load_splits
    monkeypatch.setattr(runs, "load_splits", load)
    with pytest.raises(PmmoError, match=r"movies.json: changed while"):
        train()
    assert not list(Path(".work/cycles").glob("*/cycle-*"))


# ---- what is stored


def damage(folder: Path, how: str) -> None:
    if how == "cut":
        state = folder / "state.safetensors"
        state.write_bytes(state.read_bytes()[:-1])
    elif how == "empty":
        (folder / "predictions.safetensors").write_bytes(b"")
    elif how == "no files":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "a file":
        shutil.rmtree(folder)
        folder.write_text("")
    elif how == "better scores":
        path = folder / "cycle.json"
        found = json.loads(path.read_text())
        found["summary"]["test"]["weighted"] = 0.999
        path.write_text(json.dumps(found))
    elif how == "of another cycle":
        shutil.rmtree(folder)
        shutil.copytree(folder.parent / "cycle-0", folder)
    elif how == "of another row":
        other = folder.parent.with_name("other")
        shutil.copytree(folder.parent, other)
        shutil.rmtree(folder)
        save = json.loads((other / "cycle-1/hashes.json").read_text()) | {"key": "other"}
        (other / "cycle-1/hashes.json").write_text(json.dumps(save))
        (other / "cycle-1").rename(folder)
    else:
        (folder / "hashes.json").write_text(how)


@pytest.mark.parametrize(
    "how",
    [
        "cut",
        "empty",
        "no files",
        "a file",
        "better scores",
        "of another cycle",
        "of another row",
        "",
        "[]",
        "{}",
        '{"key": 1, "cycle": 2, "sha256": 3}',
        "\x00\xff",
    ],
)
def test_a_stored_cycle_that_is_not_as_it_was_written_is_trained_again(tmp_path, capsys, how):
    settings, store = row("gmu"), tmp_path / "key"
    whole = run_cycles(settings, SPLITS, tmp_path / "whole", 1)  # loaded: maps of its files
    shutil.copytree(tmp_path / "whole", store)
    for path in store.glob("*/hashes.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"key": "key"}))
    kept = {path: path.stat().st_mtime_ns for path in (store / "cycle-0").iterdir()}
    damage(store / "cycle-1", how)
    capsys.readouterr()
    again = run_cycles(settings, SPLITS, store, 1)
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if "; this cycle is trained again" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"gmu: {store / 'cycle-1'}: ")
    for expected, found in zip(whole, again, strict=True):
        same_cycles(expected, found)
    assert {path: path.stat().st_mtime_ns for path in (store / "cycle-0").iterdir()} == kept
    assert len(run_cycles(settings, SPLITS, store, 1)) == 2
    assert "trained again" not in capsys.readouterr().err


def test_a_cycle_that_is_damaged_after_the_look_at_it_is_refused(tmp_path):
    run_cycles(row("gmu", cycles=1), SPLITS, tmp_path, 1)
    damage(tmp_path / "cycle-0", "empty")
    with pytest.raises(PmmoError, match=r"not as it was written, though it was a moment ago"):
        load_cycle(tmp_path / "cycle-0")


def test_a_folder_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    synced = []

    def sync(path):
        synced.append((path.name, (tmp_path / "whole").exists()))

    monkeypatch.setattr(writing, "_sync", sync)
    with growing_folder(tmp_path / "whole") as folder:
        for name in ("a", "b"):
            (folder / name).write_text(name)
    assert sorted(synced) == [("a", False), ("b", False)]


def test_a_folder_that_could_not_be_filled_leaves_the_old_one(tmp_path):
    with growing_folder(tmp_path / "whole") as folder:
        (folder / "a").write_text("old")
    with suppress(ZeroDivisionError), growing_folder(tmp_path / "whole") as folder:
        (folder / "a").write_text("new")
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole/a").read_text() == "old"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_called_a_full_disk(tmp_path, workers):
    with small_disk(tmp_path / "disk", "size=32k"):
        (tmp_path / "disk/fill").write_bytes(b"." * (24 << 10))
        with pytest.raises(PmmoError, match=r"cycle-.*cannot be written \(No space left") as found:
            run_cycles(row("gmu"), SPLITS, tmp_path / "disk/key", workers)
        assert "memory" not in str(found.value)
        assert not list((tmp_path / "disk").rglob("*.tmp"))


# ---- until DVC has the row


def test_a_row_that_dvc_did_not_record_is_not_trained_twice(project, monkeypatch):
    trained = []

    def counted(settings, splits, group, report=None):
        trained.extend(group)
        return train_cycles(settings, splits, group, report)

    monkeypatch.setattr(cycles, "train_cycles", counted)
    train()
    shutil.rmtree("runs")  # as DVC does before it runs a stage
    train()
    assert trained == [0, 1]
    (store,) = Path(".work/cycles").iterdir()
    name = (store / "row").read_text().strip()
    place = Path(".dvc/cache/files/md5") / name[:2] / f"{name[2:]}.dir"
    place.parent.mkdir(parents=True)
    place.touch()  # now it has
    train()
    assert trained == [0, 1, 0, 1]


def test_the_cache_may_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = ../large\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a.json").write_text("{}")
    store = tmp_path / "stores/key"
    mark_finished(store, tmp_path / "run")
    drop_recorded(tmp_path / "stores")
    assert store.exists()
    name = name_in_cache(tmp_path / "run")
    (tmp_path / "large/files/md5" / name[:2]).mkdir(parents=True)
    (tmp_path / "large/files/md5" / name[:2] / f"{name[2:]}.dir").touch()
    drop_recorded(tmp_path / "stores")
    assert not store.exists()


def test_a_rows_folder_has_the_name_that_dvc_gives_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/deep").mkdir(parents=True)
    (tmp_path / "run/model.json").write_text("{}")
    (tmp_path / "run/deep/é.txt").write_text("x")
    dvc = [sys.executable, "-m", "dvc"]
    for words in (["init", "--no-scm", "-q"], ["add", "-q", "run"]):
        subprocess.run([*dvc, *words], cwd=tmp_path, check=True, capture_output=True)
    (out,) = yaml.safe_load((tmp_path / "run.dvc").read_text())["outs"]
    name = name_in_cache(tmp_path / "run")
    assert out["md5"] == f"{name}.dir"
    assert (finished_rows.cache() / name[:2] / f"{name[2:]}.dir").exists()


def test_a_folder_behind_a_link_is_refused_before_training(project):
    (project / "large").mkdir()
    (project / "runs").symlink_to(project / "large")
    with pytest.raises(PmmoError, match=r"^runs: is a link, and DVC saves nothing"):
        train()
    assert not (project / ".work/cycles").exists()


# ---- what must be asked of people


@pytest.mark.parametrize("value", ["", " ", "abc", "0", "-1", "1.5", "²", "1_0", "9" * 5000])
def test_a_silly_number_of_workers_is_refused_before_training(project, monkeypatch, value):
    monkeypatch.setenv("PMMO_WORKERS", value)
    with pytest.raises(PmmoError, match=r"^PMMO_WORKERS is '.*'; expected a whole number from 1"):
        train()
    assert not (project / ".work/cycles").exists()


@pytest.mark.parametrize(("kept", "said"), [("best", 2), ("last", 0)])
def test_dev_that_chooses_no_epoch_keeps_the_last_and_says_so(tmp_path, capsys, kept, said):
    settings = row("gmu", epochs=3, threshold=0.99999, kept_epoch=kept)
    found = run_cycles(settings, SPLITS, tmp_path, 1)
    assert [cycle.summary["best_epoch"] for cycle in found] == [3, 3]
    kept_last = " in every epoch and chooses none; the last epoch is kept"
    lines = [line for line in capsys.readouterr().err.splitlines() if kept_last in line]
    assert len(lines) == said
    if said:
        assert lines[1].startswith("gmu, cycle 1: weighted F1 on dev is 0.000 in every epoch")


# ---- processes


def stage(folder: Path, **more: str) -> subprocess.Popen:
    (folder / "settings/engine.json").write_text('{"engine": "local", "gpu_share": 1.0}')
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train", "gmu"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | more,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_row_is_trained_by_one_process_at_a_time(project):
    (project / "dvc.yaml").unlink()
    (project / ".work/rows").mkdir(parents=True)
    with FileLock(project / ".work/rows/gmu.lock"):
        process = stage(project)
        assert process.stderr.readline() == (
            "gmu: another process trains this row; waiting for it to end\n"
        )
        time.sleep(0.5)
        assert process.poll() is None
        assert not (project / ".work/cycles").exists()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert (project / "runs/rows/gmu/summary.json").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_training_ends_when_dvc_was_killed_and_its_cycles_are_kept(project, workers):
    """The stage and the processes of its cycles; and it does not write the row any more."""
    (project / "dvc.yaml").unlink()
    save_settings(row("gmu", cycles=1000), project / "settings/gmu.json")
    (project / "settings/engine.json").write_text('{"engine": "local", "gpu_share": 1.0}')
    starter = (
        f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-m', 'stages.train', 'gmu'])"
    )
    more = {"PYTHONPATH": str(ROOT), "PMMO_WORKERS": workers, "DVC_STAGE": "train@gmu"}
    with subprocess.Popen(
        [sys.executable, "-c", starter],
        cwd=project,
        env=os.environ | more,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not list(project.glob(".work/cycles/*/cycle-0")):
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(signal.SIGKILL)
    try:
        _, alive = psutil.wait_procs(family, timeout=30)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        for one in family:
            if one.is_running():
                one.kill()
    assert list(project.glob(".work/cycles/*/cycle-0/cycle.json"))
    assert not (project / "runs").exists()


@pytest.fixture
def interruptible():
    """Where the tests run in the background, a shell may have Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_that_another_thread_gets_waits_for_the_end_of_a_fork():
    over, reached = threading.Event(), []
    thread = threading.Thread(target=over.wait)

    def fork():
        with undisturbed():
            signal.pthread_kill(thread.ident, signal.SIGINT)
            time.sleep(0.2)
            reached.append(1)

    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            fork()
    finally:
        over.set()
        thread.join()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_the_hooks_of_a_fork_is_not_lost(tmp_path):
    """Python prints and forgets what is raised in a hook; a second thread gets the signal."""
    code = """
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pmmo.training.local_processes import side_by_side

thread = threading.Thread(target=time.sleep, args=(100,), daemon=True)
thread.start()
sent = []

def hook():
    if not sent:
        sent.append(1)
        signal.pthread_kill(thread.ident, signal.SIGINT)
        time.sleep(0.2)

os.register_at_fork(before=hook)
try:
    side_by_side(lambda group, report: time.sleep(1), [[0], [1], [2]], 2, print)
    print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "interrupted\n"
