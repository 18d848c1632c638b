"""docs/errors.md against the code, and against what really happens."""

import ast
from pathlib import Path

import pytest

from pmmo.core.errors import PmmoError
from tests.messages import in_code, listed, met, pattern, words

# said by a process of its own, or no PmmoError: the test that looks for them
ELSEWHERE = {
    ".venv/bin/activate": "test_stage.py",
    "another process trains this row; waiting": "test_keeping.py",
    "this cycle is trained again": "test_keeping.py",
    "ends, since the process that started it has ended": "test_stage.py",
    "in every epoch and chooses none; the last epoch is kept": "test_keeping.py",
    "params.yaml differs from the last commit": "test_experiments.py",
    "This ran in a copy": "test_experiments.py",
    "Nothing was trained": "test_end_to_end.py",
    "another fetch uses …; waiting": "test_fetch_resume.py",
    "no difference is measured": "test_differences.py",
    "interrupted; finished work is kept": "test_training.py",
    "interrupted; all stages are stopped": "test_grid.py",
    "interrupted; nothing was written": "test_main.py",
    "is done, but its words cannot be printed": "test_import.py",
    "--separator is empty": "test_import.py",
    "unpacks to more than the memory": "test_parquet.py",
}
# met only where something is installed
OPTIONAL = {
    "a Ray worker on … has torch": "test_ray.py",  # Ray: make test-ray
    "cannot be read as KeyedVectors of gensim": "test_packages.py",  # the extra embed
    "no package or folder has this name": "test_packages.py",
    "cannot be loaded as a spaCy model": "test_packages.py",
    "this spaCy model has no word vectors": "test_packages.py",
    "cannot be loaded as a sentence-transformers folder": "test_packages.py",
    "has no model …. Check the name": "test_packages.py",
    "has no linear layer at its end": "test_packages.py",
    "its certificate is refused": "test_fetch_http.py",  # openssl
    "redirects from https to": "test_fetch_http.py",  # openssl
    "No space left": "test_fetch_resume.py",  # the right to mount a small file system
}


def texts(path: Path) -> list[str]:
    """Every piece of text in a test file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [words(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)]


@pytest.mark.parametrize(("place", "text"), list(in_code()), ids=lambda item: item[:40])
def test_every_message_of_the_code_is_listed(place, text):
    """By a piece of its fixed text; a hole of the code matches a hole of the list."""
    assert any(pattern(message).search(text) for message in listed()), f"{place}: {text}"


def test_no_message_is_listed_twice():
    messages = listed()
    assert len(messages) > 100
    assert sorted({m for m in messages if messages.count(m) > 1}) == []


@pytest.mark.parametrize(("message", "name"), [*ELSEWHERE.items(), *OPTIONAL.items()])
def test_a_message_met_elsewhere_is_looked_for_there(message, name):
    assert message in listed()
    found = texts(next(Path(__file__).parent.rglob(name)))
    assert any(pattern(message).search(text) for text in found)


def unmet_messages() -> list[str]:
    """Listed messages that are no part of a message provoked in this session (conftest.py)."""
    found = met()
    unmet = [m for m in listed() if not any(pattern(m).search(text) for text in found)]
    return sorted(set(unmet) - set(ELSEWHERE) - set(OPTIONAL))


def test_messages_of_every_process_are_noted():
    with pytest.raises(PmmoError):
        raise PmmoError("noted by this test")
    assert "noted by this test" in met()
