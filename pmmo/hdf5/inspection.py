"""The work of the child process of sandbox.py: find the facts about an HDF5 file.

HDF5 is a large C library, and its format allows links to other files, cycles, and sizes that the
file does not have. The library therefore opens a user's file only in this child process, which has
limits on memory and processor time, has two pipes open and nothing else, and cannot open a file.
The child requests bytes from its parent and returns plain facts. layout_checks.py judges the
facts. The child never reads a column: the parent reads columns itself, at the offsets found here.

To the parent: one JSON object per line, {"read": [offset, length]} or, last, {"facts": ...} or
{"error": ...}. From the parent: an 8-byte length and the bytes, for each read.
"""

import contextlib
import gc
import io
import json
import os
from functools import cache
from typing import BinaryIO

import h5py
import numpy as np

from pmmo.hdf5.layout import COLUMNS
from pmmo.hdf5.writer import split_rows

ATTRIBUTE_BYTES = 1 << 20  # the published `split` has 1.4 KB
LINKS = {h5py.h5l.TYPE_HARD: "hard", h5py.h5l.TYPE_SOFT: "soft", h5py.h5l.TYPE_EXTERNAL: "external"}
LAYOUTS = {
    h5py.h5d.COMPACT: "compact",
    h5py.h5d.CONTIGUOUS: "contiguous",
    h5py.h5d.CHUNKED: "chunked",
    h5py.h5d.VIRTUAL: "virtual",
}


class PipeFile(io.RawIOBase):
    """A read-only file of `size` bytes whose bytes come from the parent process."""

    def __init__(self, size: int, hears: BinaryIO, says: BinaryIO) -> None:
        self.size, self.position = size, 0
        self.hears, self.says = hears, says

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = start + offset
        return self.position

    def readinto(self, buffer) -> int:
        """Fill all of `buffer`: h5py ignores the returned count, so a short read must raise."""
        view = memoryview(buffer).cast("B")
        if self.position + len(view) > self.size:
            raise EOFError(f"it ends at byte {self.size:,}, before the end of its own structures")
        say(self.says, {"read": [self.position, len(view)]})
        length = int.from_bytes(self.hears.read(8), "little")
        data = self.hears.read(length)
        if len(data) != len(view):
            raise EOFError("the parent process is gone")
        view[:] = data
        self.position += len(view)
        return len(view)


def say(pipe: BinaryIO, message: dict) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


def type_name(kind: h5py.h5t.TypeID) -> str:
    """A numpy type string if the stored bytes are exactly numpy's, else a description."""
    for dtype, exact in (("<f4", h5py.h5t.IEEE_F32LE), ("<i4", h5py.h5t.STD_I32LE)):
        if kind.equal(exact):
            return dtype
    if kind.get_class() == h5py.h5t.STRING:
        if kind.is_variable_str():
            return "variable-length string"
        if kind.get_strpad() == h5py.h5t.STR_NULLPAD:
            return f"|S{kind.get_size()}"
        return "fixed-length string that is not padded with zero bytes"
    return str(kind.dtype)


def attribute(owner: h5py.HLObject, name: str) -> object:
    """The value of an attribute, or None if it is missing; ValueError if it is too large."""
    if not h5py.h5a.exists(owner.id, name.encode()):
        return None
    handle = h5py.h5a.open(owner.id, name.encode())
    size = handle.get_space().get_simple_extent_npoints() * handle.get_type().get_size()
    if size > ATTRIBUTE_BYTES:
        raise ValueError(f"has {size:,} bytes, far more than such an attribute needs")
    return owner.attrs[name]


def text(value: object) -> object:
    """The str of a bytes or str scalar, also of shape (1,) (newer numpy); None for other values."""
    item = np.asarray(value, dtype=object).ravel()
    if item.size != 1:
        return None
    (item,) = item.tolist()
    if isinstance(item, bytes):
        return item.rstrip(b"\0").decode("utf-8", "backslashreplace")
    return item if isinstance(item, str) else None


def integer(value: object) -> int | None:
    item = np.asarray(value).ravel()
    return int(item[0]) if item.size == 1 and item.dtype.kind in "iub" else None


def no_reference(value: object) -> bool:
    """Whether a reference, a scalar or of shape (1,), is null."""
    return not any(np.asarray(value, dtype=object).ravel())


def split_facts(value: object) -> list[dict] | str:
    """The records of the `split` attribute, or a description of its fault."""
    if value is None:
        return "is missing"
    fields = {"split", "source", "start", "stop"}
    if not isinstance(value, np.ndarray) or not fields <= set(value.dtype.names or ()):
        return "is not a table with the fields split, source, start and stop"
    names = value.dtype.names
    return [
        {
            "split": text(row["split"]),
            "source": text(row["source"]),
            "start": integer(row["start"]),
            "stop": integer(row["stop"]),
            "available": integer(row["available"]) if "available" in names else 1,
            "indices": "indices" in names and not no_reference(row["indices"]),
        }
        for row in value.ravel()
    ]


def dataset_facts(file: h5py.File, name: str) -> dict:
    """The facts that decide whether a dataset's raw bytes can be read in place."""
    if name.encode() not in file.id:
        return {"link": None}
    link = LINKS.get(file.id.links.get_info(name.encode()).type, "unknown")
    if link != "hard":
        return {"link": link}
    found = h5py.h5o.open(file.id, name.encode())
    if not isinstance(found, h5py.h5d.DatasetID):
        return {"link": link, "object": type(found).__name__}
    creation, space = found.get_create_plist(), found.get_space()
    empty = space.get_simple_extent_type() == h5py.h5s.NULL
    layout = LAYOUTS.get(creation.get_layout(), "unknown")
    return {
        "link": link,
        "object": "dataset",
        "type": type_name(found.get_type()),
        "shape": None if empty else list(space.get_simple_extent_dims()),
        "layout": layout,
        "filters": creation.get_nfilters(),
        "external": creation.get_external_count(),
        "offset": found.get_offset() if layout == "contiguous" else None,
        "stored": found.get_storage_size() if layout == "contiguous" else None,
    }


def guarded(look, *arguments) -> dict:
    """One fact, or its error, so that a damaged dataset does not hide the facts of the others."""
    try:
        return {"value": look(*arguments)}
    except EOFError:
        raise
    except Exception as error:
        return {"error": " ".join(str(error).split()) or type(error).__name__}


def file_facts(file: h5py.File) -> dict:
    facts = {
        "columns": {name: guarded(dataset_facts, file, name) for name in COLUMNS},
        "split": guarded(lambda: split_facts(attribute(file, "split"))),
        "provenance": guarded(lambda: text(attribute(file, "provenance"))),
        "target_names": {"value": None},
    }
    if facts["columns"]["genres"].get("value", {}).get("object") == "dataset":
        facts["target_names"] = guarded(lambda: text(attribute(file["genres"], "target_names")))
    return facts


def limit_process(memory: int, seconds: int) -> None:
    """Limit this process: no new files, no writing, `memory` more bytes, `seconds` of CPU time.

    A limit that the system does not have is skipped.
    """
    import resource

    wanted = {"RLIMIT_CPU": seconds, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0}
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", "rb") as statm:  # noqa: PTH123
        wanted["RLIMIT_AS"] = int(statm.read().split()[0]) * resource.getpagesize() + memory
    wanted["RLIMIT_NOFILE"] = 0  # last: open files stay open, and no other can be opened
    for name, value in wanted.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))


@cache
def rehearse() -> None:
    """Inspect a file in memory to load all code beforehand, because a child can open no file.

    This is needed once per process: children inherit the loaded code.
    """
    with h5py.File("rehearsal", "w", driver="core", backing_store=False) as file:
        file["genres"] = np.zeros((1, 1), "<i4")
        file["imdb_ids"] = np.array([b"tt1"])
        file["genres"].attrs["target_names"] = "[]"
        file.attrs["split"] = split_rows(list(COLUMNS), {"train": (0, 1)})
        file_facts(file)


def close_all_but(*kept: int) -> None:
    """Close the files, sockets and pipes inherited from the parent, except `kept`."""
    for descriptor in {int(name) for name in os.listdir("/dev/fd")} - {*kept}:  # noqa: PTH208
        with contextlib.suppress(OSError):  # the descriptor of the listing is closed already
            os.close(descriptor)


def look(hears: BinaryIO, says: BinaryIO, size: int, memory: int) -> None:
    """Send the facts about the file of `size` bytes, or its fault."""
    try:
        with h5py.File(PipeFile(size, hears, says), "r") as file:
            facts = file_facts(file)
        say(says, {"facts": facts})
    except MemoryError:
        say(says, {"error": f"reading its structures needs more than {memory >> 20} MiB of memory"})
    except Exception as error:
        say(says, {"error": " ".join(str(error).split()) or type(error).__name__})


def main(hears: int, says: int, size: int, memory: int, seconds: int) -> None:
    """Inspect a file of `size` bytes, then end this process, which must be a child."""
    code = 1
    try:
        gc.disable()  # objects that the parent released must not be finalised here too
        close_all_but(hears, says)
        with open(hears, "rb") as told, open(says, "wb") as asked:
            limit_process(memory, seconds)
            look(told, asked, size, memory)
        code = 0
    finally:
        os._exit(code)  # at once, without the parent's exit handlers
