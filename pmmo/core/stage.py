"""How a stage runs and ends: with its inputs as they were, or a message and the way back."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pmmo.core.errors import PmmoError
from pmmo.core.inputs import PARAMS, Inputs
from pmmo.core.starter import end_with_starter
from pmmo.core.text import print_in_any_locale

COPIES = ".dvc/tmp/exps"  # where DVC runs queued experiments, and those with --temp


def run(
    stage: str,
    main: Callable[..., object],
    *arguments: str,
    first: Callable[[], object] = lambda: None,
) -> None:
    """Call `main`; an error for people or Ctrl-C ends the process with one message, code 1."""
    print_in_any_locale()
    end_with_starter(stage)
    try:
        first()
        inputs = Inputs.of_stage("@".join([stage, *arguments]))
        main(*arguments)
        inputs.check()
    except PmmoError as error:
        stop(stage, error)
    except OSError as error:
        if error.filename is None:  # no file, or one that the message could not name
            raise
        stop(
            stage,
            PmmoError(
                f"{error.filename}: {error.strerror}. Free some space, or make the file one that "
                "you may read and write, and run again."
            ),
        )
    except KeyboardInterrupt:
        sys.exit(f"{stage}: interrupted; finished work is kept, `dvc repro` goes on from there")


def stop(stage: str, error: PmmoError) -> NoReturn:
    """End a stage with its message and, where params.yaml was changed, how to put it back."""
    sys.exit(f"{stage}: {error.lines()}{way_back()}")


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
        "\nparams.yaml differs from the last commit. If that came from -S, drop all its changes, "
        "yours too, with\n    git restore --staged --worktree params.yaml"
    )


def show_as_changed(path: Path) -> None:
    """Make git compare the file's content instead of trusting its times.

    `dvc exp run -S` leaves a file whose times git has noted: of the same size, it counts as
    unchanged, and git would restore nothing. Git may compare whole seconds only; a second ahead
    of now is later than anything it can have noted.
    """
    now = time.time()
    os.utime(path, (now, now + 1))
