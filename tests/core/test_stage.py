"""How a stage ends: on a full disk, without its packages, without the process that started it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pmmo.core import stage
from pmmo.core.errors import PmmoError
from pmmo.core.writing import write_json
from stages.aggregate import set_aside
from tests.disks import small_disk

ROOT = Path(__file__).parents[2]
# a stage that lasts, with a process of its own
STAGE = """
import multiprocessing, os, sys, time
sys.path.insert(0, {root!r})
from pmmo.core import stage

def main():
    print(os.getpid(), flush=True)
    time.sleep(60)

stage.run("long", main)
"""


def test_a_full_disk_is_said_with_the_files_name(tmp_path):
    with small_disk(tmp_path / "disk", "size=64k"):
        path = tmp_path / "disk/numbers.json"
        write_json(path, "before")
        with pytest.raises(PmmoError, match=r"numbers.json: cannot be written \(No space left"):
            write_json(path, "x" * (1 << 20))
        assert path.read_text() == '"before"\n'
        assert list((tmp_path / "disk").iterdir()) == [path]


def test_resolve_says_that_the_disk_is_full(tmp_path):
    with small_disk(tmp_path / "disk", "size=64k"):
        folder = tmp_path / "disk"
        (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        done = subprocess.run(
            [sys.executable, "-m", "stages.resolve"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("resolve: settings/")
        assert "cannot be written (No space left on device)" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(folder.rglob("*.tmp"))


def test_an_error_of_the_system_names_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def main():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "runs/rows")

    with pytest.raises(SystemExit, match=r"^train: runs/rows: Read-only file system\. Free some"):
        stage.run("train", main)


def test_what_comes_first_may_change_the_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1\n")
    stage.run("aggregate", lambda: None, first=lambda: Path("params.yaml").write_text("a: 2\n"))
    with pytest.raises(SystemExit, match=r"^aggregate: params.yaml: changed while this stage ran"):
        stage.run("aggregate", lambda: Path("params.yaml").write_text("a: 3\n"))


@pytest.mark.parametrize("module", ["stages.resolve", "stages.train", "pmmo params"])
def test_a_python_without_the_packages_is_told_what_to_do(module):
    done = subprocess.run(
        [sys.executable, "-S", "-m", *module.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert " lacks " in done.stderr
    assert "Run `source .venv/bin/activate` first" in done.stderr
    assert "Traceback" not in done.stderr


def start(tmp_path, shell: str, **more: str) -> tuple[subprocess.Popen, int]:
    """A stand-in for DVC, which starts the stage by a shell; and the number of the stage."""
    (tmp_path / "stages.long").write_text(STAGE.format(root=str(ROOT)))
    starter = "import subprocess, sys; subprocess.run(['sh', '-c', sys.argv[1]])"
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", starter, f"{sys.executable} stages.long{shell}"],
            cwd=tmp_path,
            env=os.environ | more,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen, stage: int) -> None:
    process.stdout.close()
    with suppress(ProcessLookupError):
        os.kill(stage, signal.SIGKILL)


@pytest.mark.parametrize("shell", ["", "; true"])  # `sh` becomes the command, or waits for it
@pytest.mark.parametrize("reaped", [True, False])  # or the starter is left as a zombie
def test_a_stage_ends_when_dvc_was_killed(tmp_path, shell, reaped):
    process, number = start(tmp_path, shell, DVC_STAGE="long")
    stage = psutil.Process(number)
    process.send_signal(signal.SIGKILL)
    if reaped:
        process.wait(10)
    try:
        gone, _ = psutil.wait_procs([stage], timeout=20)
        assert gone or stage.status() == psutil.STATUS_ZOMBIE  # where nobody reaps orphans
        said = (tmp_path / "errors").read_text()
        assert said.startswith("long: ends, since the process that started it has ended")
    finally:
        end(process, number)
        process.wait(10)


def test_a_stage_that_was_started_by_hand_goes_on(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    process, number = start(tmp_path, "")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    try:
        time.sleep(2)
        assert psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    finally:
        end(process, number)


def test_a_stage_goes_on_while_dvc_runs(tmp_path):
    process, number = start(tmp_path, "; true", DVC_STAGE="long")
    try:
        time.sleep(2)
        assert psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    finally:
        end(process, number)
        process.wait(10)


def test_a_row_that_was_removed_is_no_input_of_the_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_json(Path("settings/reports.json"), {"rows": {"gmu": "GMU"}})
    for old in ("1", "2"):  # removed, added again and removed
        for name in ("gmu", "mmo"):
            write_json(Path("runs/rows", name, "summary.json"), old)
        set_aside()
        assert [path.name for path in Path("runs/rows").iterdir()] == ["gmu"]
        assert json.loads(Path(".work/former-rows/mmo/summary.json").read_text()) == old
        assert "runs/rows/mmo is no row of params.yaml" in capsys.readouterr().err
