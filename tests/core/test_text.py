"""What becomes of text from outside."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmmo.core.text import LONGEST, name, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Film-Noir", "Film-Noir"),
        ("Comédie", "Comédie"),  # NFD to NFC
        ("a\nb\r\n\tc\u2028d", "a b c d"),
        ("a\x00b\x1b[31mc\x7f\x9b", "ab[31mc"),
        ("gpj\u202eexe\u2066x\u200b\u200dy\ufeff", "gpjexexy"),
        ("a\u00ad\u034f\u3164\u2800\ufe0f\U000e0041\U000e0101b", "ab"),
        ("\ud800x\ue000\U000f0000\uffff", "x"),  # surrogate, private use, no character
        ("a \u200b b", "a b"),
        ("剧情 🎬", "剧情 🎬"),
    ],
)
def test_what_cannot_be_seen_goes_and_the_rest_stays(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_printable_text_is_one_visible_line_and_stays_as_it_is(text):
    shown = printable(text)
    assert all(unicodedata.category(character)[0] != "C" for character in shown)
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


def test_a_name_is_never_empty_and_never_endless():
    assert name(" \u200b\n") == "(no name)"
    assert name("x" * LONGEST) == "x" * LONGEST
    assert len(name("x" * 10**5)) == LONGEST
    assert name("x" * 10**5).endswith("…")
