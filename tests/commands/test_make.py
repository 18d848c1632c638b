"""The Makefile where a newcomer may stand: it works, or says what is missing before anything long.

Nothing is installed: the Python is a stand-in whose environment has a `dvc` that says so.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
[ "$2" = pmmo ] && echo "$@"
[ "$2" = venv ] || exit 0
mkdir -p "$3/bin"
cp "$0" "$3/bin/python"
printf '#!/bin/sh\\necho dvc "$@"\\n' > "$3/bin/dvc"
chmod +x "$3/bin/dvc"
"""


@pytest.fixture
def project(tmp_path):
    """The Makefile in a repository whose path has a space."""
    folder = tmp_path / "my work"
    folder.mkdir()
    for name in ("Makefile", ".gitattributes", "constraints.txt", "requirements*.txt"):
        for path in ROOT.glob(name):
            shutil.copy(path, folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    return folder


def make(folder: Path, target: str = "repro") -> tuple[int, str]:
    done = subprocess.run(
        ["make", f"PYTHON={folder.parent / 'python'}", target],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        | {"GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_path_with_a_space_works(project):
    code, text = make(project)
    assert (code, text.splitlines()[-1]) == (0, "-m pmmo grid")


def test_a_folder_without_git_is_told_what_to_do_before_the_set_up(project):
    shutil.rmtree(project / ".git")
    code, text = make(project)
    assert code
    assert "git clone" in text
    assert "git init && git add -A && git commit -m start" in text
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("target", ["repro", "test"])
def test_a_folder_that_was_renamed_is_told_what_to_do(project, target):
    make(project)
    script = project / ".venv/bin/dvc"
    script.write_text("#!/where/it/was/.venv/bin/python\n")
    code, text = make(project, target)
    assert code
    assert "this folder was renamed" in text
    assert "rm -rf .venv" in text
    shutil.rmtree(project / ".venv")
    assert make(project)[0] == 0


def test_git_changes_no_line_end(project, tmp_path):
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    who = ["-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run(["git", *who, "commit", "-qm", "as it is"], cwd=project, check=True)
    clone = ["git", "-c", "core.autocrlf=true", "clone", "-q", str(project), str(tmp_path / "two")]
    subprocess.run(clone, check=True)
    assert (tmp_path / "two/Makefile").read_bytes() == (ROOT / "Makefile").read_bytes()
