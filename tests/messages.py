"""What the programs may say: by the code, by docs/errors.md, and as tests have met it."""

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pmmo.core.errors import PmmoError

ROOT = Path(__file__).parent.parent
ERRORS = {"PmmoError", "BadFile", "Refusal", "Unusable", "WrongHash", "Fault"}
FOLDER = "PMMO_TEST_MESSAGES"  # environment: where the processes of a session note their messages


def record() -> None:
    """Note every PmmoError from now on."""

    def noted(self: PmmoError, *words: object) -> None:
        Exception.__init__(self, *words)
        if FOLDER in os.environ:
            path = Path(os.environ[FOLDER], f"{os.getpid()}-{os.geteuid()}.jsonl")
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(str(self)) + "\n")

    PmmoError.__init__ = noted


def met() -> list[str]:
    """The text of every PmmoError made in this session, by all its processes."""
    files = Path(os.environ[FOLDER]).glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def listed(section: str | None = None) -> list[str]:
    """The messages in docs/errors.md, `…` for what varies; of all sections but DVC's own."""
    text = (ROOT / "docs/errors.md").read_text()
    found = []
    for part in re.split(r"^## ", text, flags=re.M):
        title = part.splitlines()[0]
        if title.startswith("DVC") or (section is not None and not title.startswith(section)):
            continue
        for row in re.findall(r"^\| (?!message)(.*?) \| ", part, re.M):
            found += re.findall(r"`([^`]+)`", row)
    return found


def pattern(message: str) -> re.Pattern:
    return re.compile(".*?".join(map(re.escape, message.split("…"))), re.S)


def in_code() -> Iterator[tuple[str, str]]:
    """(place, text) of each message that the code makes, `…` for what is filled in."""
    for path in sorted([*(ROOT / "pmmo").rglob("*.py"), *(ROOT / "stages").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
            if name in ERRORS or name == "sys.exit":
                parts = node.args[1:] if name == "Refusal" else node.args[:1]
                text = " ".join(map(words, parts))
                if re.search(r"[a-z]{3}", text.partition(":")[2] or text):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def words(node: ast.expr) -> str:
    """The text of an expression as far as it stands in the code."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(words, node.values))
    return "…"
