"""The command that walks the grid, over a stand-in for DVC; test_end_to_end.py has the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pmmo import __main__
from pmmo.commands import grid
from pmmo.core.errors import PmmoError

ROOT = Path(__file__).parents[2]
STAGES = ["resolve", "fetch", "extract", "train@a", "train@b", "train@c", "experiment", "report"]
CHANGED = ["train@a", "train@c", "experiment", "report"]

# dvc --wait-for-lock ARGUMENTS: notes when each command starts and ends
STAND_IN = f"""
import json, os, pathlib, subprocess, sys, time
_, wait, command, *rest = sys.argv
assert wait == "--wait-for-lock"
if command == "status":
    print(json.dumps({ {name: [] for name in CHANGED}!r}))
    sys.exit(3 if os.environ.get("FAILS") == "status" else 0)
elif command == "stage":
    print("\\n".join({STAGES!r}))
else:
    name = rest[-1] if rest else "all"
    print("Running", name, flush=True)
    print("workers:", os.environ.get("PMMO_WORKERS"), flush=True)
    started = time.monotonic()
    subprocess.run(["sleep", os.environ.get("STAGE_SECONDS", "0.4")])
    with open("log.jsonl", "a") as log:
        print(json.dumps([name, started, time.monotonic()]), file=log)
    print("python is", pathlib.Path(sys.executable).parent == \
          pathlib.Path(os.environ["PATH"].split(":")[0]), flush=True)
    sys.exit(3 if name == os.environ.get("FAILS") else 0)
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid, "DVC", (sys.executable, str(script), "--wait-for-lock"))
    return script


def log() -> dict[str, tuple[float, float]]:
    """Stage -> (start, end), in the order of their ends."""
    lines = Path("log.jsonl").read_text().splitlines()
    return {name: (start, end) for name, start, end in map(json.loads, lines)}


def at_once(times: list[tuple[float, float]]) -> int:
    return max(sum(a <= start < b for a, b in times) for start, _ in times)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_training_stages_run_side_by_side_between_the_others(jobs, capsys):
    text = grid.run_grid(jobs)
    found = log()
    assert next(iter(found)) == "extract"
    assert list(found)[-1] == "all"
    assert set(found) == {"extract", "train@a", "train@c", "experiment", "all"}  # not train@b
    trained = [times for name, times in found.items() if name not in ("extract", "all")]
    assert at_once(trained) == min(jobs, 3)
    assert found["extract"][1] <= min(start for start, _ in trained)
    assert max(end for _, end in trained) <= found["all"][0]
    assert text.startswith("3 training stages")
    lines = capsys.readouterr().out.splitlines()
    assert "[train@c] Running train@c" in lines
    assert "[train@c] python is True" in lines


@pytest.mark.parametrize(
    ("cores", "jobs", "asked", "at_a_time", "workers"),
    [
        (2, None, None, 2, 1),
        (9, None, None, 4, 2),
        (9, 2, None, 2, 4),
        (1, 3, None, 3, 1),
        (9, 2, "7", 2, 7),
    ],
)
def test_stages_share_the_cores(monkeypatch, capsys, cores, jobs, asked, at_a_time, workers):
    monkeypatch.setattr(grid, "usable_cores", lambda: cores)
    monkeypatch.delenv("PMMO_WORKERS", raising=False)
    if asked:
        monkeypatch.setenv("PMMO_WORKERS", asked)
    grid.run_grid(jobs)
    lines = capsys.readouterr().out.splitlines()
    assert f"3 training stages to bring up to date, {at_a_time} at a time" in lines
    assert f"[train@c] workers: {workers}" in lines
    assert f"[extract] workers: {asked}" in lines


def test_a_stage_that_fails_is_named_after_the_others_have_finished(monkeypatch):
    monkeypatch.setenv("FAILS", "train@a")
    with pytest.raises(PmmoError, match=r"failed: `dvc repro --single-item train@a` \(code 3\)"):
        grid.run_grid(2)
    assert set(log()) == {"extract", "train@a", "train@c", "experiment"}


def test_nothing_is_trained_on_movies_that_cannot_be_had(monkeypatch):
    monkeypatch.setenv("FAILS", "extract")
    with pytest.raises(PmmoError, match=r"`dvc repro extract` \(code 3\)"):
        grid.run_grid(2)
    assert set(log()) == {"extract"}


def test_dvc_that_cannot_say_what_has_changed_ends_the_command(monkeypatch):
    monkeypatch.setenv("FAILS", "status")
    with pytest.raises(PmmoError, match=r"^`dvc status --json` failed with code 3$"):
        grid.run_grid(2)
    assert set(log()) == {"extract"}


def as_in_the_foreground() -> None:
    """A suite in the background, or under nohup, hands on that it ignores these signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing_running(tmp_path, stand_in, sent):
    code = f"""
import sys
from pmmo import __main__
from pmmo.commands import grid
grid.DVC = {(sys.executable, str(stand_in), "--wait-for-lock")!r}
sys.argv = ["pmmo", "grid"]
__main__.main()
"""
    process = subprocess.Popen(
        (sys.executable, "-c", code),
        env=os.environ | {"PYTHONPATH": str(ROOT), "STAGE_SECONDS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_the_foreground,
    )
    assert process.stdout.readline() == "[extract] Running extract\n"
    time.sleep(0.3)
    family = psutil.Process(process.pid).children(recursive=True)
    assert [child for child in family if child.name() == "sleep"]
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "grid: interrupted; all stages are stopped" in errors
    assert not psutil.wait_procs(family, timeout=5)[1]


def test_a_stage_that_ignores_the_interrupt_is_killed(monkeypatch):
    monkeypatch.setattr(grid, "SECONDS_TO_STOP", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True)"
    process = subprocess.Popen(
        (sys.executable, "-c", f"{deaf}; time.sleep(100)"),
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    grid.stop([process])
    process.stdout.close()
    assert process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5", ""])
def test_a_wrong_number_of_jobs_is_refused(jobs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pmmo", "grid", "--jobs", jobs])
    with pytest.raises(SystemExit) as stopped:
        __main__.main()
    assert stopped.value.code == 2
    assert "whole number from 1 up" in capsys.readouterr().err
