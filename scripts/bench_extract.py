"""Measure `extract` at the published size: time against plain h5py copies, and peak memory.

    python -m scripts.bench_extract [--repeat 5]

The copies move the same bytes with h5py's `read_direct` into arrays made beforehand, in the same
run and alternating with `extract`. The yardstick is new arrays, as np.empty gives them: the system
finds their pages during the copy, as it does for the files of `extract`. Beside them: arrays that
were written to before, a copy and nothing else; and arrays that are files (np.memmap), since files
are what `extract` has to leave behind.

The times are those of the function: the stage loads numpy and h5py before, as these copies do. The
fastest of each is the steadier comparison; medians move with what else the machine does.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pmmo.extract import extract
from pmmo.layout import COLUMNS
from scripts.show_fetch import PRINT_PEAK, ROOT, ROWS, write_full_size


def copy(path: Path, make: Callable[[str, tuple[int, ...], np.dtype], np.ndarray]) -> float:
    """Seconds to read all columns into arrays that `make(name, shape, dtype)` gives beforehand."""
    with h5py.File(path) as file:
        arrays = {name: make(name, file[name].shape, file[name].dtype) for name in COLUMNS}
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
        arrays = {
            "new arrays": lambda name, shape, dtype: np.empty(shape, dtype),
            "used arrays": lambda name, shape, dtype: np.ones(shape, dtype),
            "new files": lambda name, shape, dtype: np.memmap(folder / name, dtype, "w+", 0, shape),
        }
        times = {"extract": []} | {f"copy to {kind}": [] for kind in arrays}
        for _ in range(repeat + 1):
            for kind, make in arrays.items():
                times[f"copy to {kind}"].append(copy(path, make))
            times["extract"].append(timed_extract(path, folder))
        peak, largest = peak_memory(path, folder), ROWS * 4096 * 4
    print(" " * 20, "median   fastest  extract takes (median, fastest)")
    ours = times["extract"][1:]  # the first of each warms the caches
    for what, (_, *seconds) in times.items():
        middle, least = statistics.median(seconds), min(seconds)
        ratios = f"{statistics.median(ours) / middle:.2f} x, {min(ours) / least:.2f} x"
        print(f"{what:20} {middle:.3f} s  {least:.3f} s  {ratios}")
    print(f"peak memory          {peak / 1e6:.0f} MB, {peak / largest:.2f} x the largest column")


if __name__ == "__main__":
    main()
