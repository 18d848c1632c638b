"""Errors that are meant for people, and how a stage ends with one."""

import reprlib

from pmmo.core.text import printable

LONGEST = 3000  # characters of a message; what is longer lacks its middle


class PmmoError(Exception):
    """What is wrong, where, and what to do; shown without a traceback.

    It may hold names and paths that others chose: its text is one line of bounded length, with
    nothing hidden in it. What belongs on a line of its own is a note (`add_note`).
    """

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"

    def lines(self) -> str:
        """The text, and the notes below it."""
        return "\n".join([str(self), *getattr(self, "__notes__", ())])


def briefly(value: object) -> str:
    """The `repr` of any value for a message: on one line and of bounded length."""
    short = reprlib.Repr()
    short.maxstring, short.maxother, short.maxlevel = 80, 80, 2
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number with too many digits"
