"""The set-up: the environment against the lock, and which Python `make` takes."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.clone import ROOT

TOOLS = ("sh", "make", "echo", "env", "rm")  # all that a machine without Python has in these tests


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_environment_is_the_locked_one():
    """pip finds every requirement, and theirs in turn, installed in the locked version."""
    command = ["-m", "pip", "install", "--dry-run", "--no-index", "-r", "requirements.txt"]
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=alone | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"run `make test` again, or `make lock`:\n{done.stderr}"
    present = {canonical(name) for name in re.findall(r"satisfied: ([\w.-]+)", done.stdout)}
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    assert len(present) > 100
    cuda = {name for name in present if name.startswith(("cuda", "nvidia", "triton"))}
    assert sorted(present - cuda - {canonical(name) for name in pins}) == []


def test_the_lock_pins_exactly_and_nothing_of_cuda():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.lstrip().startswith("#")]
    assert [line for line in pins if not re.match(r"[\w.-]+==[\w.]+( ; .+)?$", line)] == []
    assert [line for line in pins if line.startswith(("cuda", "nvidia", "triton"))] == []


@pytest.fixture
def machine(tmp_path) -> Path:
    """A clone's set-up files, and in bin/ the programs of a machine without Python."""
    for path in (ROOT / "Makefile", ROOT / "constraints.txt", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path


def add_python(machine: Path, name: str, suitable: bool) -> None:
    """A program that makes .venv, or one that fails as an old Python does."""
    path = machine / "bin" / name
    path.write_text(f'#!/bin/sh\necho {name} "$@" >> calls\nexit {0 if suitable else 1}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def make(machine: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, what is said, and the last call of a Python."""
    done = subprocess.run(
        ["make", ".venv/bin/python", *arguments], cwd=machine, env={"PATH": str(machine / "bin")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    calls = machine / "calls"
    return (
        done.returncode,
        done.stderr,
        calls.read_text().splitlines()[-1] if calls.exists() else "",
    )


@pytest.mark.parametrize("minor", range(9, 17))
def test_python_3_11_to_3_14_is_suitable(minor, monkeypatch):
    code = re.search(r"^SUITABLE := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1]
    monkeypatch.setattr(sys, "version_info", (3, minor, 0, "final", 0))
    with pytest.raises(SystemExit) as end:
        exec(code)
    assert bool(end.value.code) != (11 <= minor <= 14)


@pytest.mark.parametrize("pythons", [{}, {"python3.11": False, "python3": False}])
def test_a_machine_without_a_suitable_python_gets_a_sentence(machine, pythons):
    for name, suitable in pythons.items():
        add_python(machine, name, suitable)
    code, said, _ = make(machine)
    assert code != 0
    assert said.startswith("pmmo needs Python 3.11, 3.12, 3.13 or 3.14 with its module venv.")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.13": True}, "python3.13"),
        ({"python3.11": False, "python3.12": True, "python3": True}, "python3.12"),
        ({"python3.12": False, "python3": True}, "python3"),
    ],
)
def test_make_takes_the_first_suitable_python(machine, pythons, taken):
    for name, suitable in pythons.items():
        add_python(machine, name, suitable)
    code, said, call = make(machine)
    assert code == 0, said
    assert call == f"{taken} -m venv .venv"


def test_a_named_python_comes_first(machine):
    add_python(machine, "python3.11", True)
    add_python(machine, "mine", True)
    assert make(machine, f"PYTHON={machine}/bin/mine") == (0, "", "mine -m venv .venv")


def test_a_named_python_must_be_suitable(machine):
    add_python(machine, "python3.11", True)
    add_python(machine, "old", False)
    code, said, _ = make(machine, f"PYTHON={machine}/bin/old")
    assert code != 0
    assert "pmmo needs Python 3.11" in said


def test_make_test_runs_every_check_before_the_tests():
    done = subprocess.run(
        ["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    steps = ["ruff format --check", "ruff check", "lint-imports", "mypy", "-m pytest"]
    places = [done.stdout.find(f"\n{step}") for step in steps[:-1]]
    places.append(done.stdout.find(steps[-1]))
    assert -1 not in places
    assert places == sorted(places)


# ---- containers and CI: what they name is there


STAGES = re.compile(r"^FROM .* AS (\w+)$", re.M)


def test_ci_runs_the_pythons_that_the_project_supports():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]
    supported = [f"3.{minor}" for minor in range(11, 15)]  # as the Makefile's, tested above
    assert job["strategy"]["matrix"]["python"] == supported
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    assert re.search(r"^ARG PYTHON=(.*)$", (ROOT / "Dockerfile").read_text(), re.M)[1] in supported
    assert {"run": "make test PYTHON=python"} in job["steps"]


def test_containers_set_up_as_the_makefile_does():
    docker = (ROOT / "Dockerfile").read_text()
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["build"]["target"] in STAGES.findall(docker)
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).samefile(ROOT / "Dockerfile")
    assert "\nRUN make works\n" in docker
    assert container["postCreateCommand"] == "make works"
    assert re.search("^works:", (ROOT / "Makefile").read_text(), re.M)


def test_an_image_gets_every_file_of_the_repository():
    left_out = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert ".venv" in left_out
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():
        above = {str(path) for path in (Path(name), *Path(name).parents)}
        assert above.isdisjoint(left_out), name
