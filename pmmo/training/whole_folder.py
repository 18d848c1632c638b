"""A folder that is whole or absent, even if the machine goes down: synced, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmmo.core.errors import PmmoError


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `folder`, in the place of an older one.

    If anything goes wrong it is removed, and an older one stays. PmmoError where it cannot be
    written.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        sync(folder.parent)
    except OSError as error:
        raise PmmoError(
            f"{error.filename or folder}: cannot be written ({error.strerror}). Free some space, "
            "or make the folder writable, and run again; finished cycles are kept."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
