"""Errors that are meant for people, and how a stage ends with one."""

import reprlib


class PmmoError(Exception):
    """What is wrong, where, and what to do; shown without a traceback."""


def briefly(value: object) -> str:
    """The `repr` of any value for a message: on one line and of bounded length."""
    short = reprlib.Repr()
    short.maxstring, short.maxother, short.maxlevel = 80, 80, 2
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number with too many digits"
