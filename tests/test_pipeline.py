"""dvc.yaml against the code: every stage depends on exactly the files it reaches."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
HIDDEN = {"report": {"pmmo/page.html.j2"}}  # reached without an import: read as a template


def imports(path: Path) -> set[Path]:
    """Files of this project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in ("pmmo", "stages") and file.exists():
                found.add(file)
    return found


def closure(path: Path) -> set[str]:
    reached, waiting = set(), {path}
    while waiting:
        file = waiting.pop()
        reached.add(file)
        waiting |= imports(file) - reached
    return {str(file.relative_to(ROOT)) for file in reached}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_it_reaches_and_no_other(name):
    stage = STAGES[name].get("do", STAGES[name])
    module = stage["cmd"].split()[2].replace(".", "/") + ".py"
    code = {dep for dep in stage["deps"] if dep.startswith(("pmmo/", "stages/"))}
    assert code == closure(ROOT / module) | HIDDEN.get(name, set())


@pytest.mark.parametrize("file", sorted((ROOT / "pmmo").glob("*.py")), ids=lambda file: file.stem)
def test_the_library_imports_no_stage(file):
    assert not any("stages" in path.parts for path in imports(file))


def test_training_reaches_no_reporting_and_no_fetching():
    names = {Path(path).stem for path in closure(ROOT / "stages/train.py")}
    assert not names & {
        "fetch",
        "ranges",
        "web",
        "synthetic",
        "tables",
        "figures",
        "page",
        "claims",
    }
