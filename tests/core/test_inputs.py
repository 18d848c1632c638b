"""What a stage reads is the same at its end as at its start."""

import os
import re
import time
from pathlib import Path

import pytest
import yaml

from pmmo.core import inputs
from pmmo.core.errors import PmmoError
from pmmo.core.inputs import Inputs, declared

ROOT = Path(__file__).parents[2]
PIPELINE = {
    "train": {
        "foreach": "${variants}",
        "do": {"cmd": "…", "deps": ["settings/${key}.json", "code"], "outs": ["runs/${key}"]},
    },
    "extract": {
        "cmd": "…",
        "deps": ["code"],
        "params": [{"data/fetched/columns.json": ["sha256"]}],
    },
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("code/sub/b.py", "code/a.py", "settings/gmu.json", "data/fetched/columns.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("1\n")
        os.utime(name, (0, 0))
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": PIPELINE}))
    Path("params.yaml").write_text("elbo: kl  # which\nwidth: 3\n")
    return tmp_path


def add(name: str, text: str) -> None:
    with Path(name).open("a") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda: add("code/sub/b.py", "2"), "code/sub/b.py"),
        (lambda: add("code/sub/new.py", "2"), "code/sub/new.py"),
        (lambda: Path("code/a.py").unlink(), "code/a.py"),
        (lambda: Path("code/a.py").rename("code/c.py"), "code/a.py, code/c.py"),
        (lambda: add("settings/gmu.json", " "), "settings/gmu.json"),
        (lambda: add("params.yaml", "more: 1\n"), "params.yaml"),
        (lambda: add("params.yaml", "[: no YAML"), "params.yaml"),
    ],
)
def test_what_changes_under_a_stage_is_refused_by_name(project, change, name):
    taken = Inputs.of_stage("train@gmu")
    taken.check()
    change()
    with pytest.raises(PmmoError, match=rf"^{re.escape(name)}: changed while this stage ran"):
        taken.check()


def test_what_changes_no_result_is_not_refused(project):
    taken = Inputs.of_stage("train@gmu")
    os.utime("code/a.py")
    add("params.yaml", "# a comment\n")
    Path("code/__pycache__").mkdir()
    add("code/__pycache__/a.pyc", "…")
    add("code/a.py.tmp", "…")
    add("data/fetched/columns.json", "of another stage")
    taken.check()
    add("code/a.py", "2")
    Path("code/a.py").write_text("1\n")  # and back
    taken.check()


def test_a_long_list_of_changes_is_cut(project):
    taken = Inputs.of_stage("train@gmu")
    for number in range(9):
        add(f"code/new{number}.py", "")
    with pytest.raises(PmmoError, match=r"^code/new0.py, code/new1.py, code/new2.py and 6 more: "):
        taken.check()


def test_code_that_was_edited_while_it_was_imported_is_refused(project, monkeypatch):
    now = time.time()
    monkeypatch.setattr(inputs.psutil.Process, "create_time", lambda self: now - 5)
    os.utime("code/a.py", (now - 6, now - 6))
    os.utime("code/sub/b.py", (now + 3600, now + 3600))  # unpacked by a clock that is ahead
    Inputs.of_stage("train@gmu")
    os.utime("code/a.py", (now - 4, now - 4))
    with pytest.raises(PmmoError, match=r"^code/a.py: changed while"):
        Inputs.of_stage("train@gmu")


def test_inputs_are_those_that_the_pipeline_declares(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    found = declared("train@gmu")
    assert Path("settings/gmu.json") in found
    assert Path("data/tensors") in found
    assert Path("pmmo/training") in found
    assert Path("data/fetched/columns.json") in declared("extract")
    monkeypatch.chdir(tmp_path)
    assert declared("train@gmu") == []
