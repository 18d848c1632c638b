"""Measure `extract` at the published size: time against plain h5py copies, and peak memory.

    python -m scripts.bench_extract [--repeat 5]

The copies move the same bytes with h5py's `read_direct`, in the same run and alternating with
`extract`: once into arrays in memory, once into arrays that are files (np.memmap), since files are
what `extract` has to leave behind.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from pmmo.extract import extract
from pmmo.layout import COLUMNS
from scripts.show_fetch import PRINT_PEAK, ROOT, ROWS, write_full_size


def copy(path: Path, folder: Path | None) -> float:
    """Seconds to read all columns into arrays made beforehand: in memory, or files in `folder`."""
    with h5py.File(path) as file:
        arrays = {}
        for name in COLUMNS:
            shape, dtype = file[name].shape, file[name].dtype
            if folder is None:
                arrays[name] = np.ones(shape, dtype)  # written once: its pages exist
            else:
                arrays[name] = np.memmap(folder / name, dtype, "w+", shape=shape)
        start = time.perf_counter()
        for name, array in arrays.items():
            file[name].read_direct(array)
        return time.perf_counter() - start


def timed_extract(path: Path, folder: Path) -> float:
    shutil.rmtree(folder / "tensors", ignore_errors=True)  # as DVC does before it runs a stage
    start = time.perf_counter()
    extract(path, folder / "tensors", nan_text="zeros", memory_limit_gb=4.0)
    return time.perf_counter() - start


def peak_memory(path: Path, folder: Path) -> int:
    """Bytes that a process of its own has at most, while it extracts."""
    code = (
        "import sys; from pathlib import Path; from pmmo.extract import extract\n"
        "extract(Path(sys.argv[1]), Path(sys.argv[2]), nan_text='zeros', memory_limit_gb=4.0)\n"
        + PRINT_PEAK
    )
    command = [sys.executable, "-c", code, path, folder / "peak"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "movies.hdf5"
        write_full_size(path, unused={})
        times = {"extract": [], "copy to memory": [], "copy to files": []}
        for _ in range(repeat + 1):
            times["copy to memory"].append(copy(path, None))
            times["copy to files"].append(copy(path, folder))
            times["extract"].append(timed_extract(path, folder))
        peak, largest = peak_memory(path, folder), ROWS * 4096 * 4
    for what, seconds in times.items():
        seconds = seconds[1:]  # the first of each warms the caches
        print(
            f"{what:16} {statistics.median(seconds):.3f} s "
            f"(median of {repeat}, {min(seconds):.3f} to {max(seconds):.3f})"
        )
    print(f"peak memory      {peak / 1e6:.0f} MB, {peak / largest:.2f} x the largest column")


if __name__ == "__main__":
    main()
