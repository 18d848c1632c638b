"""`pmmo` as a package: what is in it, what it needs, and the command that it brings."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser

import pytest
import yaml

import pmmo
from pmmo.__main__ import main
from tests.clone import ROOT

FOR_THE_PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "pmmo")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built in a copy, as pip builds it."""
    folder = tmp_path_factory.mktemp("source")
    for path in (*(ROOT / name for name in FOR_THE_PACKAGE), *ROOT.glob("requirements*.txt")):
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, folder / path.name, ignore=ignored)
        else:
            shutil.copy(path, folder)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (path,) = folder.glob("pmmo-*.whl")
    return zipfile.ZipFile(path)


def described(wheel: zipfile.ZipFile, name: str) -> str:
    (found,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{name}")]
    return wheel.read(found).decode()


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(described(wheel, "METADATA"))


def pins(name: str) -> list[str]:
    lines = (ROOT / f"requirements-{name}.txt").read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if not line.startswith("#")]


def test_the_package_has_all_of_pmmo_and_nothing_else(wheel):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "pmmo").rglob("*.*") if path.suffix != ".pyc"]
    assert inside == {path.relative_to(ROOT).as_posix() for path in files if path.is_file()}


def test_the_package_needs_what_the_requirements_pin(wheel):
    needs = metadata(wheel).get_all("Requires-Dist")
    assert [n for n in needs if "extra ==" not in n] == pins("run")
    for extra in ("test", "ray", "embed", "bench"):
        mine = [n.partition(";")[0].strip() for n in needs if f'extra == "{extra}"' in n]
        assert mine == pins(extra)
    assert metadata(wheel)["Requires-Python"] == "<3.15,>=3.11"


def test_requirements_txt_is_what_running_and_testing_need():
    text = (ROOT / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    parts = ["-r requirements-run.txt", "-r requirements-test.txt"]
    assert lines == ["-c constraints.txt", *parts]


def test_the_command_pmmo_is_python_m_pmmo(wheel):
    assert "pmmo = pmmo.__main__:main" in described(wheel, "entry_points.txt")


def test_one_version_everywhere(wheel, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pmmo", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().out) == (0, f"pmmo {pmmo.__version__}\n")
    assert metadata(wheel)["Version"] == pmmo.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pmmo.__version__
    assert re.search(
        rf"^## {re.escape(pmmo.__version__)}$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("pmmo pr", "predict"), ("pmmo predict READ", "README.md"), ("pmmo predict --spl", "--split")],
)
def test_bash_completes_commands_options_and_files(typed, completed):
    words = typed.split()
    script = f"""
        source <({sys.executable} -m pmmo completion bash)
        COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE="{typed}"
        _shtab_pmmo pmmo {words[-1]} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert completed in [line.strip() for line in done.stdout.splitlines()], done.stderr
