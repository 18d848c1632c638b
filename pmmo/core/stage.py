"""How a stage ends: with a message for people, and how to put params.yaml back."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pmmo.core.errors import PmmoError

PARAMS = Path("params.yaml")
COPIES = ".dvc/tmp/exps"  # where DVC runs queued experiments, and those with --temp


def run(stage: str, main: Callable[..., object], *arguments: str) -> None:
    """Call `main`; an error for people or Ctrl-C ends the process with one message, code 1."""
    print_in_any_locale()
    try:
        main(*arguments)
    except PmmoError as error:
        stop(stage, error)
    except KeyboardInterrupt:
        sys.exit(f"{stage}: interrupted; finished work is kept, `dvc repro` goes on from there")


def print_in_any_locale() -> None:
    """From now on, standard output and error escape what their encoding has not got."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stop(stage: str, error: PmmoError) -> NoReturn:
    """End a stage with its message and, where params.yaml was changed, how to put it back."""
    sys.exit(f"{stage}: {error}{way_back()}")


def way_back() -> str:
    """How to undo `dvc exp run -S`, which leaves its values in params.yaml when a stage fails."""
    if COPIES in Path.cwd().as_posix():
        return "\nThis ran in a copy: the params.yaml of your workspace is as it was."
    if not PARAMS.exists():
        return ""
    show_as_changed(PARAMS)
    command = ["git", "diff", "--quiet", "HEAD", "--", str(PARAMS)]
    try:
        code = subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:  # no git
        return ""
    if code != 1:  # 0: as committed; more: no repository, or no commit
        return ""
    return (
        "\nparams.yaml differs from the last commit. If that came from -S, put it back with\n"
        "    git restore params.yaml"
    )


def show_as_changed(path: Path) -> None:
    """Make git compare the file's content instead of trusting its times.

    `dvc exp run -S` leaves a file whose times git has noted: of the same size, it counts as
    unchanged, and git would restore nothing. Git may compare whole seconds only; a second ahead
    of now is later than anything it can have noted.
    """
    now = time.time()
    os.utime(path, (now, now + 1))
