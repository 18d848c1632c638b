"""Measure the traffic of `fetch` from a full-size file in the published layout on a real nginx.

    python -m scripts.show_fetch            the ranges, and a whole download for comparison
    python -m scripts.show_fetch --ranges   the ranges alone
    python -m scripts.show_fetch --json     the figures for a program
    python -m scripts.show_fetch --rows 50  a small trial

Needs nginx (Debian's package `nginx`) and 2 GB of disk: unused data in the 15 GB are holes.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pmmo.hdf5.layout import COLUMNS
from pmmo.hdf5.writer import split_rows
from pmmo.published.mmimdb import GENRES, IMAGE_WIDTH, ROWS, SPLITS, TEXT_WIDTH

ROOT = Path(__file__).resolve().parent.parent
UNUSED = {  # shape of a row and type: 14.6 GB of holes, between and after the columns
    "images": ((3, 256, 160), "<f4"),
    "sequences": ((300,), "<i4"),
    "three_grams": ((9_799,), "<f4"),
    "word_grams": ((7_369,), "<f4"),
}
# getrusage would also count the memory of the parent process
PRINT_PEAK = """
import re
print(int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""
FETCH = """
import sys
from pathlib import Path
from pmmo.fetching.fetch import fetch
url, target, work = sys.argv[1:]
fetch(Path(target), source=url, memory_limit_gb=4.0, work=Path(work))
"""
DOWNLOAD = """
import requests, sys
with requests.get(sys.argv[1], stream=True) as response:
    for _ in response.iter_content(1 << 20):
        pass
"""
CONFIGURATION = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format bytes "$status $bytes_sent";
    access_log {folder}/access.log bytes;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


def write_as_published(path: Path, rows: int) -> None:
    """Write the published file's datasets at full size: random columns, holes elsewhere."""
    random = np.random.default_rng(0)
    values = {
        "features": lambda n: random.random((n, TEXT_WIDTH), np.float32),
        "genres": lambda n: random.integers(0, 2, (n, len(GENRES)), np.int32),
        "vgg_features": lambda n: random.random((n, IMAGE_WIDTH), np.float32),
    }
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    names = sorted([*COLUMNS, *UNUSED])
    with h5py.File(path, "w") as file:
        for name in names:
            if name in UNUSED:
                shape, kind = UNUSED[name]
                file.create_dataset(name, (rows, *shape), kind, dcpl=early.copy())
            elif name == "imdb_ids":
                file[name] = np.array([b"%07d" % row for row in range(rows)])
            else:
                empty = values[name](0)
                column = file.create_dataset(name, (rows, *empty.shape[1:]), empty.dtype)
                for start in range(0, rows, 2048):
                    column[start : start + 2048] = values[name](min(2048, rows - start))
        file["genres"].attrs["target_names"] = json.dumps(GENRES)
        ends = {name: (a * rows // ROWS, b * rows // ROWS) for name, (a, b) in SPLITS.items()}
        file.attrs["split"] = split_rows(names, ends)


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """Serve `folder`/files on loopback; yield the address. The log has status and bytes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    text = CONFIGURATION.format(folder=folder, port=port, user=user)
    (folder / "nginx.conf").write_text(text)
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def measured(code: str, arguments: list[str], folder: Path) -> dict[str, float]:
    """Run code in a process; its bytes from nginx, requests, seconds and peak memory."""
    log = folder / "access.log"
    before = log.stat().st_size
    start = time.monotonic()
    command = [sys.executable, "-c", code + PRINT_PEAK, *arguments]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.monotonic() - start
    time.sleep(0.2)  # nginx logs a request after its last byte
    lines = log.read_text()[before:].split()
    return {
        "requests": len(lines) // 2,
        "bytes": sum(map(int, lines[1::2])),
        "seconds": round(seconds, 2),
        "peak_memory_bytes": int(run.stdout),
    }


def same_columns(first: Path, second: Path) -> bool:
    """All bytes, types and shapes of the four columns; `first` may have more datasets."""
    with h5py.File(first) as one, h5py.File(second) as two:
        return all(
            one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name])
            for name in COLUMNS
        )


def demonstrate(folder: Path, rows: int, whole: bool) -> dict[str, Any]:
    source, target = folder / "files" / "movies.hdf5", folder / "fetched.hdf5"
    source.parent.mkdir()
    write_as_published(source, rows)
    with h5py.File(source) as file:
        column_bytes = sum(file[name].nbytes for name in COLUMNS)
    folder.chmod(0o755)
    with nginx(folder) as address:
        url = f"{address}/movies.hdf5"
        arguments = [url, str(target), str(folder / "work")]
        figures = {
            "file_bytes": source.stat().st_size,
            "column_bytes": column_bytes,
            "ranges": measured(FETCH, arguments, folder),
            "identical": same_columns(source, target),
        }
        if whole:
            figures["whole"] = measured(DOWNLOAD, [url], folder)
    return figures


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"file {figures['file_bytes']:,} bytes, its four columns {figures['column_bytes']:,}; "
        f"columns identical: {figures['identical']}",
        f"{'':16}{'on the wire':>18}{'requests':>10}{'seconds':>9}{'peak memory':>13}",
    ]
    for name in ("ranges", "whole"):
        if name in figures:
            found = figures[name]
            lines.append(
                f"{name:16}{found['bytes']:>18,}{found['requests']:>10}{found['seconds']:>9}"
                f"{found['peak_memory_bytes'] / 1e6:>10.0f} MB"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help=f"default: {ROWS}, as published")
    parser.add_argument("--ranges", action="store_true", help="no whole download beside it")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed (apt-get install nginx).")
    with tempfile.TemporaryDirectory() as folder:
        figures = demonstrate(Path(folder), options.rows, whole=not options.ranges)
    print(json.dumps(figures) if options.json else table(figures))


if __name__ == "__main__":
    main()
