"""Run inspection.py on a file that nobody has reason to trust, and survive what happens."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from pmmo.sources import BadFile, Source, check_signature

MEMORY = 512 << 20  # bytes the child may take beyond what it has at its start
SECONDS = 20  # of the child's own time; looking into the published file takes 0.01 s
METADATA_BYTES = 16 << 20  # the published file's metadata has less than 0.1 MB
METADATA_READS = 20_000
ANSWER_BYTES = 8 << 20

REMEDY = (
    "Give a file in the layout of the published multimodal_imdb.hdf5 (docs/data.md); "
    "`python -m pmmo import` makes one of a table (docs/own-data.md)."
)


def inspect(source: Source, *, memory: int = MEMORY, seconds: float = SECONDS) -> dict:
    """Facts about the HDF5 file behind `source`, found by a child process that cannot do harm.

    BadFile where the file is no HDF5 file, is damaged, or makes the HDF5 library crash, hang
    or ask for too much.
    """
    check_signature(source)
    root = Path(__file__).resolve().parent.parent
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "pmmo.inspection"),
            *(str(source.size), str(memory), str(int(seconds) + 1)),
        ],
        cwd=root,
        env={**os.environ, **one_thread},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        message = _converse(child, source, seconds)
    finally:
        child.kill()
        child.wait()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()
    if "error" in message:
        raise BadFile(
            f"{source.name}: cannot be read as HDF5 ({message['error']}). It is damaged, "
            f"incomplete or hostile. {REMEDY}"
        )
    return message["facts"]


def _converse(child: subprocess.Popen, source: Source, seconds: float) -> dict:
    """Serve the child's reads until it answers; only the child's own time counts."""
    pending, served, reads, left = b"", 0, 0, seconds
    while True:
        start = time.monotonic()
        while b"\n" not in pending:
            wait = left - (time.monotonic() - start)
            if wait <= 0 or not select.select([child.stdout], [], [], wait)[0]:
                return {"error": f"looking into it takes more than {seconds:g} s"}
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                return {"error": _death(child)}
            pending += data
            if len(pending) > ANSWER_BYTES:
                return {"error": "its description is far too long"}
        left -= time.monotonic() - start
        line, pending = pending.split(b"\n", 1)
        message = json.loads(line)
        if "read" not in message:
            return message
        offset, length = message["read"]
        served, reads = served + length, reads + 1
        if served > METADATA_BYTES or reads > METADATA_READS:
            return {"error": "it holds far more metadata than this layout has"}
        data = source.read(offset, length)
        try:
            child.stdin.write(len(data).to_bytes(8, "little"))
            child.stdin.write(data)
            child.stdin.flush()
        except BrokenPipeError:
            return {"error": _death(child)}


def _death(child: subprocess.Popen) -> str:
    code = child.wait(timeout=SECONDS)
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return "looking into it takes too much processor time"
    if code < 0:
        return f"the HDF5 library crashes on it: {signal.Signals(-code).name}"
    return f"the process that looked into it ended with code {code}"
