"""Errors that are meant for people, and how a stage ends with one."""

import reprlib

from pmmo.core.text import printable


class PmmoError(Exception):
    """What is wrong, where, and what to do; shown without a traceback.

    Names and paths of others may be in it: its text is one line, with nothing hidden. What belongs
    on a line of its own is a note (`add_note`).
    """

    def __str__(self) -> str:
        return printable(super().__str__())

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
