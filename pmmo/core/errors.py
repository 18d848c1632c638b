"""Errors that are meant for people, and how a stage ends with one."""


class PmmoError(Exception):
    """What is wrong, where, and what to do; shown without a traceback."""
