"""Errors that are meant for people."""


class PmmoError(Exception):
    """What is wrong, where, and what to do; shown without a traceback."""
