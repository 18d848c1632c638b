"""Files and folders that are whole or absent: made under a fresh name, then renamed.

What is under way lies in a folder of its own beside the target, `.pmmo-….tmp`, whose name nobody
can foresee: two writers of one name never meet, and the last to finish wins whole. A lock on that
folder shows that its writer lives; the next writer there removes what killed ones have left.
"""

import errno
import fcntl
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from pmmo.core.errors import PmmoError

PREFIX, SUFFIX = ".pmmo-", ".tmp"  # between them eight characters, see `tempfile.mkdtemp`


@contextmanager
def growing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """The name to write a file under; it becomes `path` if all goes well. Makes the folder of both.

    `durable` forces the file to the disk before that, so that a power cut leaves the old one or
    the new one. PmmoError where it cannot be written, or where `path` is a link, a folder or a
    device: these are not replaced.
    """
    with _under_way(path, stat.S_ISREG) as new:
        yield new
        if durable:
            _sync(new)
        _check_target(path, stat.S_ISREG)
        if path.exists():
            new.chmod(stat.S_IMODE(path.stat().st_mode))  # what was private stays private
        new.replace(path)


@contextmanager
def growing_folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Like `growing`, for a folder: an empty one to fill, which then takes the place of `path`."""
    with _under_way(path, stat.S_ISDIR) as new:
        new.mkdir()
        yield new
        if durable:
            for file in filter(Path.is_file, new.rglob("*")):
                _sync(file)
        _check_target(path, stat.S_ISDIR)
        _exchange(new, path)


def check_writable(path: Path) -> None:
    """PmmoError now where `growing` could not write, rather than after long work."""
    with _under_way(path, stat.S_ISREG):
        pass


def _exchange(new: Path, path: Path) -> None:
    """Put the folder `new` where `path` is; what was there goes with what is under way."""
    while True:
        with suppress(FileNotFoundError):
            path.rename(Path(tempfile.mkdtemp(dir=new.parent)) / path.name)
        try:
            new.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another writer was faster
                raise
        else:
            return


@contextmanager
def _under_way(path: Path, wanted: Callable[[int], bool]) -> Iterator[Path]:
    """The name of `path` in a fresh folder beside it, which is removed with all in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_target(path, wanted)
        _remove_left_overs(path.parent)
        folder, lock = _fresh_folder(path.parent)
        try:
            yield folder / path.name
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        raise PmmoError(
            f"{final_name(path)}: cannot be written ({error.strerror or error}). Free some space, "
            "or name a place that you may write to."
        ) from None


def final_name(path: Path) -> Path:
    """The path without the temporary folder in which a file of a growing folder lies."""
    parts = [p for p in path.parts if not (p.startswith(PREFIX) and p.endswith(SUFFIX))]
    return Path(*parts)


def _check_target(path: Path, wanted: Callable[[int], bool]) -> None:
    """PmmoError where something is at `path` whose mode is not `wanted`."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if wanted(mode):
        return
    if stat.S_ISLNK(mode):
        what = f"a link to {path.readlink()}"
    else:
        what = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device"
    raise PmmoError(f"{path}: is {what}, which is not replaced. Remove it, or give another name.")


def _fresh_folder(parent: Path) -> tuple[Path, int]:
    """A folder that nobody else has, and its lock: a descriptor to close at the end."""
    while True:
        folder = parent / Path(tempfile.mkdtemp(SUFFIX, PREFIX, parent)).name  # messages show it
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            if _locked(lock) is not False and folder.exists():  # else taken for a left-over
                return folder, lock
            os.close(lock)


def _locked(descriptor: int) -> bool | None:
    """Lock a folder: False where another process holds it, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_left_overs(parent: Path) -> None:
    """Of writers that were killed."""
    for folder in parent.glob(f"{PREFIX}{'?' * 8}{SUFFIX}"):
        with suppress(OSError):  # not ours, or gone meanwhile
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _locked(lock):
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` in one step, making its folder; PmmoError as `growing`."""
    with growing(path, durable=durable) as new:
        new.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with one newline at its end."""
    write_bytes(path, (text.rstrip("\n") + "\n").encode())


def write_json(path: Path, value: object) -> None:
    """Write JSON with plain, rounded numbers (see `plain`)."""
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False))


def plain(value: object) -> object:
    """The value as JSON types: floats to 6 decimals, what is not finite as None.

    Rounding keeps the last bits of a sum, which depend on the processor, out of the files.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return round(value, 6) + 0.0 if math.isfinite(value) else None
    return value
