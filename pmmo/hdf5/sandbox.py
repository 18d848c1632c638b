"""Run inspection.py in a child process on an untrusted file, and handle every outcome.

The child process is a fork of this process, which has already loaded the HDF5 library; a new Python
would take 80 ms to load it. h5py ensures that no other thread is inside the library at the fork.
"""

import json
import math
import multiprocessing
import os
import select
import signal
import time
from multiprocessing.process import BaseProcess

from pmmo.hdf5 import inspection
from pmmo.hdf5.sources import REMEDY, BadFile, Source, check_signature

FORK = multiprocessing.get_context("fork")
MEMORY = 512 << 20  # bytes that the child may allocate after its start
SECONDS = 20  # of the child's own time; the inspection of the published file takes 0.01 s
METADATA_BYTES = 16 << 20  # the published file's metadata has less than 0.1 MB
METADATA_READS = 20_000
ANSWER_BYTES = 8 << 20


def inspect(source: Source, *, memory: int = MEMORY, seconds: float = SECONDS) -> dict:
    """Facts about the HDF5 file of `source`, found in a child process with limits.

    Raises BadFile if the file is not an HDF5 file, is damaged, or makes the HDF5 library crash,
    hang or exceed a limit.
    """
    check_signature(source)
    inspection.rehearse()
    (asked, child_says), (child_hears, told) = os.pipe(), os.pipe()
    limits = (memory, math.floor(seconds) + 1)
    child = FORK.Process(
        target=inspection.main, args=(child_hears, child_says, source.size, *limits)
    )
    child.start()
    os.close(child_says)
    os.close(child_hears)
    os.set_blocking(told, False)  # a child that a file has taken over may never listen
    try:
        message = _converse(child, asked, told, source, seconds)
    finally:
        child.kill()
        child.join()
        child.close()
        os.close(asked)
        os.close(told)
    if not isinstance(facts := message.get("facts"), dict):
        why = str(message.get("error"))[:300]
        raise BadFile(
            f"{source.name}: cannot be read as HDF5 ({why}). It is damaged, incomplete or hostile. "
            f"{REMEDY}"
        )
    return facts


def _converse(child: BaseProcess, asked: int, told: int, source: Source, seconds: float) -> dict:
    """Serve the child's reads until its answer; only the child's time counts towards `seconds`."""
    pending, served, reads, left = b"", 0, 0, seconds
    slow = {"error": f"looking into it takes more than {seconds:g} s"}
    while True:
        while b"\n" not in pending:
            if (left := _wait([asked], [], left)) <= 0:
                return slow
            data = os.read(asked, 1 << 16)
            if not data:
                return {"error": _death(child)}
            pending += data
            if len(pending) > ANSWER_BYTES:
                return {"error": "its description is far too long"}
        line, pending = pending.split(b"\n", 1)
        try:
            message = json.loads(line)
            offset, length = message.get("read", (0, 0))
            if "read" not in message:
                return message
            if not all(type(n) is int and 0 <= n <= source.size for n in (offset, length)):
                raise ValueError
        except (ValueError, TypeError, AttributeError, RecursionError):  # a file has taken it over
            return {"error": "the process that looked into it says what makes no sense"}
        served, reads = served + length, reads + 1
        if served > METADATA_BYTES or reads > METADATA_READS:
            return {"error": "it holds far more metadata than this layout has"}
        data = source.read(offset, length)
        reply = memoryview(len(data).to_bytes(8, "little") + data)
        try:
            while reply:
                if (left := _wait([], [told], left)) <= 0:
                    return slow
                reply = reply[os.write(told, reply) :]
        except BrokenPipeError:
            return {"error": _death(child)}


def _wait(to_read: list[int], to_write: list[int], left: float) -> float:
    """Wait for one of the pipes; how many of the `left` seconds are left, or none."""
    start = time.monotonic()
    ready = any(select.select(to_read, to_write, [], left))
    return left - (time.monotonic() - start) if ready else 0.0


def _death(child: BaseProcess) -> str:
    """Why the child ended; it has closed its pipe, so it ends within a moment."""
    start = time.monotonic()
    while (code := child.exitcode) is None:
        if time.monotonic() - start > SECONDS:
            return "the process that looked into it does not end"
        time.sleep(0.001)
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return "looking into it takes too much processor time"
    if code < 0:
        return f"the HDF5 library crashes on it: {signal.Signals(-code).name}"
    return f"the process that looked into it ended with code {code}"
