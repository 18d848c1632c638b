"""dvc.yaml against the code: every stage depends on exactly what it reaches."""

from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
GRAPH = grimp.build_graph("pmmo", "stages", cache_dir=None)
CODE = ("pmmo/", "stages/")


def code_deps(name):
    stage = STAGES[name].get("do", STAGES[name])
    return [dep for dep in stage["deps"] if dep.startswith(CODE)]


def reached(name):
    """Files of this project that a stage imports, directly or not."""
    command = STAGES[name].get("do", STAGES[name])["cmd"].split()
    modules = GRAPH.find_upstream_modules(command[2]) | {command[2]}
    files = {ROOT / (module.replace(".", "/") + ".py") for module in modules}
    return {file.relative_to(ROOT).as_posix() for file in files if file.exists()}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_it_reaches_and_no_other(name):
    deps, files = code_deps(name), reached(name)
    covered = {dep: [f for f in files if f == dep or f.startswith(f"{dep}/")] for dep in deps}
    assert files - {file for own in covered.values() for file in own} == set()
    assert [dep for dep, own in covered.items() if not own] == []
    for dep in deps:
        if (ROOT / dep).is_dir() and dep != "pmmo/core":  # core is small and shared by all
            inside = {f.relative_to(ROOT).as_posix() for f in (ROOT / dep).rglob("*.py")}
            assert inside - files - {f"{dep}/__init__.py"} == set()


def test_the_pipeline_names_folders():
    assert sum(len(code_deps(name)) for name in STAGES) <= 40


def test_training_reaches_no_reader_of_hdf5_and_no_report():
    packages = {file.split("/")[1] for file in reached("train") if file.count("/") > 1}
    assert packages == {"core", "config", "data", "kernels", "model", "training"}
