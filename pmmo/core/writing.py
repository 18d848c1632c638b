"""Files that are whole or absent: written under a temporary name, then renamed."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pmmo.core.errors import PmmoError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step, making its folder; errors as of `growing`."""
    with growing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def growing(path: Path) -> Iterator[Path]:
    """The temporary name to write a large file under; it becomes `path` if all goes well.

    PmmoError where it cannot be written. Makes its folder.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise PmmoError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space, or name a "
            "place that you may write to."
        ) from None


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
