"""Cycles on a real Ray cluster: two nodes of one CPU each, on this machine.

Skipped where Ray is not installed; `make test-ray` installs it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

pytest.importorskip("ray", reason="Ray is optional: make test-ray installs it")

from ray.cluster_utils import Cluster

from pmmo.config.engine import Engine
from pmmo.core.errors import PmmoError
from pmmo.model.systems import Batch
from pmmo.training.cycle_store import load_machines
from pmmo.training.cycles import run_cycles
from pmmo.training.device import prepare_process
from pmmo.training.ray_tasks import RETRIES, connected, run_on_ray
from tests.training.test_training import SPLITS, row, same_cycles

pytestmark = [
    pytest.mark.timeout(300),
    # Ray's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module", autouse=True)
def as_the_stage_prepares_itself():
    precision = torch.get_float32_matmul_precision()
    prepare_process(torch.device("cpu"))
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def nodes():
    """Two nodes, each with its own raylet and object store."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray's 15 lets workers starve where others compute
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def engine(nodes):
    return Engine(nodes.address)


def raylet(node) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def training(nodes) -> dict[int, int]:
    """Process that trains a cycle now -> the node's number."""
    found = {}
    for number, node in enumerate(nodes.list_all_nodes()):
        for child in raylet(node).children():
            try:
                if any("train_there" in word for word in child.cmdline()):
                    found[child.pid] = number
            except psutil.NoSuchProcess:
                pass
    return found


def until(condition, seconds=100.0) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@contextmanager
def meanwhile(action):
    """Run `action` over and over in a thread while the block runs."""
    over = threading.Event()

    def repeat():
        while not over.wait(0.2):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("system", ["pmmo", "mmo", "released"])
def test_two_nodes_give_the_numbers_of_this_machine_to_the_last_bit(
    tmp_path, nodes, engine, system
):
    settings = row(system, cycles=3)
    here = run_cycles(settings, SPLITS, tmp_path / "here", 1)
    used = Counter()
    with (
        meanwhile(lambda: used.update(training(nodes).values())),
        connected(engine, "auto") as cluster,
    ):
        assert (cluster.device, cluster.slots) == ("cpu", 2)
        there = run_cycles(settings, SPLITS, tmp_path / "there", 2, cluster)
    for one, two in zip(here, there, strict=True):
        same_cycles(one, two)
    assert set(used) == {0, 1}  # both nodes trained
    assert load_machines(tmp_path / "there")[0]["workers"] == 2


def test_cycles_of_another_engine_are_taken_up(tmp_path, engine):
    settings = row("gmu", cycles=2)
    here = run_cycles(row("gmu", cycles=1), SPLITS, tmp_path / "store", 1)
    before = (tmp_path / "store/cycle-0/cycle.json").stat().st_mtime_ns
    with connected(engine, "cpu") as cluster:
        there = run_cycles(settings, SPLITS, tmp_path / "store", 2, cluster)
    same_cycles(here[0], there[0])
    assert (tmp_path / "store/cycle-0/cycle.json").stat().st_mtime_ns == before
    assert len(load_machines(tmp_path / "store")) == 2


class Told:
    """What `run_on_ray` tells and keeps, counted; `on_epoch` may do mischief."""

    def __init__(self, mischief=lambda: None):
        self.epochs, self.kept, self.mischief = Counter(), {}, mischief

    def on_epoch(self, cycle, dev_f1):
        self.epochs[cycle] += 1
        self.mischief()

    def keep(self, cycle, machine):
        number = cycle.summary["cycle"]
        assert number not in self.kept, "kept twice"
        self.kept[number] = cycle


EPOCHS = 8  # long enough to be killed in the middle


def test_a_killed_worker_s_cycle_is_trained_again_and_counted_once(tmp_path, nodes, engine):
    settings = row("gmu", cycles=3, epochs=EPOCHS)
    here = run_cycles(settings, SPLITS, tmp_path, 1)
    killed = []

    def kill_one():
        """At the first news of an epoch: a worker in the middle of a cycle."""
        for pid in training(nodes) if not killed else ():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return

    told = Told(kill_one)
    with connected(engine, "cpu") as cluster:
        run_on_ray(cluster, settings, SPLITS, [0, 1, 2], told.on_epoch, told.keep)
    assert len(killed) == 1
    assert not psutil.pid_exists(killed[0])
    assert told.epochs == dict.fromkeys(range(3), EPOCHS)
    assert sorted(told.kept) == [0, 1, 2]
    for number, cycle in enumerate(here):
        same_cycles(cycle, told.kept[number])


def test_a_node_that_is_lost_loses_no_cycle(tmp_path, nodes, engine):
    settings = row("gmu", cycles=3, epochs=300)  # about a second each: the loss must fall into one
    here = run_cycles(settings, SPLITS, tmp_path, 1)
    third = nodes.add_node(**NODE)
    lost = []

    def lose_it():
        if not lost and 2 in training(nodes).values():
            lost.append(third)
            nodes.remove_node(third, allow_graceful=False)

    told = Told()
    with connected(engine, "cpu") as cluster, meanwhile(lose_it):
        run_on_ray(cluster, settings, SPLITS, [0, 1, 2], told.on_epoch, told.keep)
    assert lost
    assert told.epochs == dict.fromkeys(range(3), 300)
    for number, cycle in enumerate(here):
        same_cycles(cycle, told.kept[number])


def test_a_cycle_that_always_dies_is_given_up_and_the_finished_ones_are_kept(
    tmp_path, nodes, engine
):
    finished = run_cycles(row("gmu", cycles=1, epochs=EPOCHS), SPLITS, tmp_path, 1)
    deaths = []

    def kill_all():
        for pid in training(nodes):
            if pid not in deaths:
                deaths.append(pid)
                os.kill(pid, signal.SIGKILL)

    settings = row("gmu", cycles=2, epochs=EPOCHS)
    with (
        meanwhile(kill_all),
        connected(engine, "cpu") as cluster,
        pytest.raises(PmmoError, match=r"gave cycle 1 up: .*run again"),
    ):
        run_cycles(settings, SPLITS, tmp_path, 2, cluster)
    assert len(deaths) == RETRIES + 1
    assert [path.name for path in tmp_path.iterdir()] == ["cycle-0"]
    assert len(finished) == 1


def test_a_cycle_that_fails_says_why_and_stops_the_others(tmp_path, nodes, engine):
    broken = Batch(SPLITS["train"].text * float("nan"), *SPLITS["train"][1:])
    with (
        connected(engine, "cpu") as cluster,
        pytest.raises(PmmoError, match=r"^gmu, cycle \d: the loss is nan"),
    ):
        run_cycles(row("gmu"), SPLITS | {"train": broken}, tmp_path, 2, cluster)
    assert list(tmp_path.iterdir()) == []
    assert until(lambda: not training(nodes))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_stopped_leaves_no_worker(tmp_path, nodes, engine, sent):
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from pathlib import Path
from tests.training.test_training import SPLITS, row
from pmmo.training.cycles import run_cycles
from pmmo.config.engine import Engine
from pmmo.training.ray_tasks import connected
with connected(Engine({engine.engine!r}), "cpu") as cluster:
    run_cycles(row("gmu", epochs=100000), SPLITS, Path({str(tmp_path)!r}), 2, cluster)
"""
    driver = subprocess.Popen((sys.executable, "-c", code), stderr=subprocess.DEVNULL)
    assert until(lambda: len(training(nodes)) == 2)
    driver.send_signal(sent)
    assert driver.wait(timeout=60) != 0
    assert until(lambda: not training(nodes))
    assert list(tmp_path.iterdir()) == []


def test_a_worker_with_another_torch_is_refused(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0.0+cpu")
    with (
        connected(engine, "cpu") as cluster,
        pytest.raises(
            PmmoError, match=r"a Ray worker on .* has torch 2.*the driving machine 1.0.0: install"
        ),
    ):
        run_cycles(row("gmu"), SPLITS, tmp_path, 2, cluster)
