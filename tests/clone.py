"""A committed copy of the working tree at a tiny scale, and commands run in it as a user would."""

import os
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
KEPT = ("pmmo-kl-l2", "gmu")
BIN = str(Path(sys.executable).parent)
USER = {
    "GIT_AUTHOR_NAME": "u",
    "GIT_AUTHOR_EMAIL": "u@example.org",
    "GIT_COMMITTER_NAME": "u",
    "GIT_COMMITTER_EMAIL": "u@example.org",
    "COLUMNS": "160",
}


def environment() -> dict[str, str]:
    """That of a user with the virtual environment active."""
    return os.environ | USER | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def run(folder: Path, *command: str, ok: bool = True) -> str:
    """Output of a command in the clone; it must succeed, or fail where `ok` is false."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, text
    return text


def pmmo(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """`python -m pmmo` in a folder that is no clone."""
    return subprocess.run(
        [sys.executable, "-m", "pmmo", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def edit_params(folder: Path, change) -> None:
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def make_tiny(tree: dict) -> None:
    demo = tree["scales"]["demo"]
    demo["data"]["rows"] = 120
    demo["widths"] = {"wide": 12, "narrow": 6, "base": 8}
    demo["all"] = {"epochs": 2, "batch_size": 24, "maxout_units": 8}
    del demo["gmu"]["epochs"]
    paper = tree["scales"]["paper"]
    tree["scales"]["paper"] = deepcopy(demo) | {"data": paper["data"]}  # trained once for both
    for system in tree["systems"].values():
        system["cycles"] = 2
    tree["variants"] = {name: tree["variants"][name] for name in KEPT}
    tree["intervals"]["draws"] = 100


def make_clone(folder: Path) -> None:
    """Copy, shrink, reproduce once, commit."""
    files = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    edit_params(folder, make_tiny)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "tiny")


def wait_for_queue(folder: Path) -> None:
    """Start DVC's queue and wait until nothing in it waits or runs."""
    run(folder, "dvc", "queue", "start")
    for _ in range(600):
        status = run(folder, "dvc", "queue", "status")
        if "Running" not in status and "Queued" not in status:
            return
        time.sleep(0.5)
    raise AssertionError(status)
