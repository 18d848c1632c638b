"""Text from outside (genres, labels, paths) made fit to show: one line, nothing hidden in it."""

import io
import os
import re
import sys
import unicodedata
from typing import TextIO

LONGEST = 200  # characters of a name
# Drawn as nothing, though Unicode counts them as letters, marks or symbols.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

# of Markdown; an underscore inside a word and an ampersand of no entity are plain text
MARKUP = re.compile(r"[\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


def printable(text: str) -> str:
    """The text in NFC, without control, bidi and invisible characters; any space is one blank."""
    text = unicodedata.normalize("NFC", re.sub(r"\s+", " ", text))
    shown = (character for character in text if unicodedata.category(character)[0] != "C")
    return re.sub(" +", " ", INVISIBLE.sub("", "".join(shown)))


def hides(text: str) -> bool:
    """Whether a text has a control, bidi or invisible character, or a line break."""
    return not text.isprintable() or INVISIBLE.search(text) is not None


def name(text: str) -> str:
    """A printable name of 1 to LONGEST characters; what is longer ends with …"""
    text = printable(text).strip() or "(no name)"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def cell(text: str) -> str:
    """Text fit for a CSV: an apostrophe before what a spreadsheet would run (= + - @)."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a cell too."""
    return MARKUP.sub(r"\\\g<0>", printable(text))


def to_nowhere(stream: TextIO) -> None:
    """Let a stream whose reader has gone be flushed: by Python at its end, or before a fork."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_in_any_locale() -> None:
    """From now on, standard output and error escape what their encoding has not got."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
