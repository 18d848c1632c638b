"""docs/errors.md against the code, and against what really happens."""

import pytest

from tests.messages import MET, in_code, listed, pattern

# said by a process of its own: which test meets them
ELSEWHERE = {
    "params.yaml differs from the last commit": "test_experiments.py",
    "This ran in a copy": "test_experiments.py",
    "Nothing was trained": "test_end_to_end.py",
    "another fetch uses …; waiting": "test_fetch_resume.py",
}
# held against the code above, but provoked by no test so far
UNPROVOKED = {
    *("more than … MiB of memory", "ends at byte …, the file at …", "no readable movies"),
    *("stores … bytes, its shape needs", "the names are not text", "bytes too early"),
    *("start and stop are not integers", "the whole file where a part was asked for"),
    *("to a whole download", "had to be read … times from its start", "no secure connection"),
    *("does not say how large the file is", "It was looked for in", "finds no CUDA device"),
    *("only some cycles have the predictions", "rows trained on different data"),
    *("predictions are not of the", "Run dvc repro aggregate"),
    *("interrupted; finished cycles are kept",),
}


@pytest.mark.parametrize(("place", "text"), list(in_code()), ids=lambda item: item[:40])
def test_every_message_of_the_code_is_listed(place, text):
    """By a piece of its fixed text; a hole of the code matches a hole of the list."""
    assert any(pattern(message).search(text) for message in listed()), f"{place}: {text}"


def test_no_message_is_listed_twice():
    messages = listed()
    assert len(messages) > 100
    assert sorted({m for m in messages if messages.count(m) > 1}) == []


def test_every_listed_message_is_met_by_a_test(request):
    """For real: each is part of a message that some test of this session has provoked."""
    if not request.config.stash["whole suite"]:
        pytest.skip("speaks about the whole suite: python -m pytest")
    unmet = [m for m in listed() if not any(pattern(m).search(text) for text in MET)]
    assert sorted(set(unmet) - set(ELSEWHERE) - UNPROVOKED) == []
