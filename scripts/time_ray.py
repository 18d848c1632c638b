"""Compare one Ray node with two on the training stages of the demonstration, on one machine.

A node is one CPU core, to which its raylet and workers are pinned. The grid command, DVC and the
stages are pinned to the first node's core, as on the head of a real cluster. The rounds alternate
(1 2, 2 1, …), so that a machine that slows down favours neither. The script works on a copy of the
tracked files and does not change this workspace.

    python -m scripts.time_ray                                   # the whole grid, one round
    python -m scripts.time_ray --rows gmu --epochs 2 --rounds 2  # a small trial
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from pmmo.commands import grid
from pmmo.config.engine import VARIABLE
from pmmo.core.errors import PmmoError
from pmmo.training.ray_tasks import import_ray

ROOT = Path(__file__).parents[1]
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 300 << 20}


def make_copy(folder: Path, rows: list[str] | None, epochs: int | None) -> None:
    """Copy the tracked files, optionally with fewer variants or epochs; run up to training."""
    listed = subprocess.run(
        ("git", "ls-files"), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    subprocess.run(("git", "init", "-q"), cwd=folder, check=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    if rows:
        if unknown := sorted(set(rows) - set(tree["variants"])):
            raise PmmoError(f"--rows: params.yaml has no row {unknown[0]!r}")
        tree["variants"] = {name: tree["variants"][name] for name in rows}
    if epochs:
        tree["scales"]["demo"]["all"]["epochs"] = epochs
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    os.chdir(folder)
    grid.run_stages([("repro", grid.BEFORE)], 1)


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Start a Ray cluster with node k on core k, and this process on core 0; yield its address."""
    # a node keeps as many idle workers as it has CPUs; by default a node of one CPU would end the
    # worker of one stage while another stage trains, and the next cycle would import torch again
    os.environ["RAY_num_workers_soft_limit"] = "8"  # noqa: SIM112 - Ray's name
    from ray.cluster_utils import Cluster

    cores = sorted(os.sched_getaffinity(0))
    started = Cluster()
    try:
        for core in cores[:nodes]:
            os.sched_setaffinity(0, {core})
            started.add_node(**NODE)
        os.sched_setaffinity(0, {cores[0]})
        yield started.address
    finally:
        os.sched_setaffinity(0, cores)
        started.shutdown()


def train(nodes: int, jobs: int) -> float:
    """Seconds for all training stages, from an empty cache, without the start of the cluster."""
    for folder in ("runs", ".work", ".dvc/cache"):
        shutil.rmtree(folder, ignore_errors=True)
    lock = Path("dvc.lock").read_text()
    stages = grid.changed_stages()
    with cluster(nodes) as address:
        os.environ[VARIABLE] = address
        start = time.perf_counter()
        grid.run_stages([("repro", "--single-item", name) for name in stages], jobs)
        seconds = time.perf_counter() - start
        del os.environ[VARIABLE]
    Path("dvc.lock").write_text(lock)
    print(f"{nodes} node(s): {len(stages)} stages in {seconds:.1f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.time_ray")
    parser.add_argument("--rows", nargs="+", help="default: all, and the system under study")
    parser.add_argument("--epochs", type=int, help="default: those of params.yaml")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=3, help="training stages at a time")
    options = parser.parse_args()
    import_ray()
    if len(os.sched_getaffinity(0)) < 2:
        raise PmmoError("two nodes need two cores; there is one")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        make_copy(Path(folder, "pmmo"), options.rows, options.epochs)
        for round_ in range(options.rounds):
            for nodes in (1, 2) if round_ % 2 == 0 else (2, 1):
                seconds[nodes].append(train(nodes, options.jobs))
        os.chdir(ROOT)
    ratios = [two / one for one, two in zip(seconds[1], seconds[2], strict=True)]
    print(f"two nodes / one node: {statistics.median(ratios):.3f} (each round: ", end="")
    print(", ".join(f"{ratio:.3f}" for ratio in ratios) + ")")


if __name__ == "__main__":
    try:
        main()
    except PmmoError as error:
        sys.exit(f"time_ray: {error}")
