"""dvc.yaml against the code: every stage depends on exactly what it reaches.

And the packages: which may import which, and the README's list of them.
"""

import ast
import re
import subprocess
from pathlib import Path

import grimp
import pytest
import yaml
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

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
    assert sum(len(code_deps(name)) for name in STAGES) <= 47


def test_training_reaches_no_reader_of_hdf5_and_no_report():
    packages = {file.split("/")[1] for file in reached("train") if file.count("/") > 1}
    assert packages == {"core", "config", "data", "decisions", "kernels", "model", "training"}


def test_imports_run_one_way():
    """The contracts of pyproject.toml."""
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS


def listed(pattern: str) -> set[str]:
    """Names at the start of the lines of the README's layout."""
    layout = (ROOT / "README.md").read_text().partition("## Layout\n")[2]
    return set(re.findall(pattern, layout.split("```")[1], re.M))


def tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return files.stdout.splitlines()


def test_the_layout_of_the_readme_is_the_list_of_folders():
    folders = {file.split("/")[0] for file in tracked() if "/" in file and file[0] != "."}
    assert listed(r"^(\w+)/ ") == folders
    inside = {file.split("/")[1] for file in tracked() if file.startswith("pmmo/")}
    packages = {name for name in inside if (ROOT / "pmmo" / name).is_dir()}
    assert listed(r"^  (\w+)/ ") == packages
    assert listed(r"^  (\w+\.py) ") == inside - packages - {"__init__.py"}


def test_every_package_and_module_says_what_it_is_for():
    files = [file for file in tracked() if re.match(r"(pmmo|stages|scripts)/.*\.py$", file)]
    trees = {f: ast.parse((ROOT / f).read_text()) for f in files if (ROOT / f).exists()}
    silent = [file for file, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []
