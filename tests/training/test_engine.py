"""Which engine is chosen, what is refused, and what a Ray cluster is asked for. No Ray needed."""

import json
import sys
from collections import Counter
from dataclasses import asdict, fields
from types import SimpleNamespace

import pytest
import torch

from pmmo.config.engine import VARIABLE, Engine, load_engine
from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.training.ray_tasks import (
    Cluster,
    connected,
    import_ray,
    measure,
    public_version,
    run_on_ray,
)
from pmmo.training.run_folder import unite
from tests.training.test_training import SPLITS, row

ALLOWED = (
    r"allowed: local, ray \(.*\) or the address of a Ray cluster, host:port or ray://host:port"
)


def test_the_addresses_that_ray_is_given():
    assert Engine().address is None
    assert Engine("ray").address == "auto"
    for address in ("10.0.0.1:6379", "head-svc:6379", "ray://localhost:10001", "[::1]:6379"):
        assert Engine(address).address == address


@pytest.mark.parametrize(
    "value", ["Ray", "spark", "", "auto", "localhost", "host:port", "http://head:6379", None, 1, []]
)
def test_a_wrong_engine_is_refused_with_the_allowed_ones(value):
    with pytest.raises(PmmoError, match=ALLOWED):
        Engine(value)


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0, "half", True, float("nan")])
def test_a_wrong_share_of_a_gpu_is_refused(share):
    with pytest.raises(PmmoError, match=r"gpu_share is .* a number > 0 and <= 1"):
        Engine("ray", share)


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(asdict(Engine("local", 0.5))))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert load_engine(path) == Engine("local", 0.5)
    monkeypatch.setenv(VARIABLE, "head:6379")
    assert load_engine(path) == Engine("head:6379", 0.5)
    monkeypatch.setenv(VARIABLE, "local ")
    with pytest.raises(PmmoError, match=r"PMMO_ENGINE is 'local '; allowed"):
        load_engine(path)


def test_the_engine_is_no_part_of_a_rows_settings():
    assert not {field.name for field in fields(Settings)} & {field.name for field in fields(Engine)}


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # import ray: ImportError
    with pytest.raises(
        PmmoError, match=r"pip install -r requirements.txt -r requirements-ray.txt.*engine: local"
    ):
        import_ray()


def test_nothing_listens_at_the_address(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with (
        pytest.raises(PmmoError, match=r"(?s)cluster '127.0.0.1:1': .*refused.*ray start --head"),
        connected(Engine("127.0.0.1:1"), "cpu"),
    ):
        pass


def cluster_with(cpus, gpus):
    found = {name: count for name, count in (("CPU", cpus), ("GPU", gpus)) if count}
    return SimpleNamespace(cluster_resources=lambda: found)


@pytest.mark.parametrize(
    ("cpus", "gpus", "device", "share", "expected"),
    [
        (8, 0, "auto", 1.0, ("cpu", 0.0, 8)),
        (64, 8, "auto", 1.0, ("cuda", 1.0, 8)),
        (64, 8, "auto", 0.2, ("cuda", 0.2, 40)),
        (4, 8, "cuda", 0.5, ("cuda", 0.5, 4)),  # each takes a CPU too
        (64, 8, "cpu", 1.0, ("cpu", 0.0, 64)),
    ],
)
def test_what_a_cycle_takes_of_the_cluster(cpus, gpus, device, share, expected):
    cluster = measure(cluster_with(cpus, gpus), Engine("ray", share), device)
    assert (cluster.device, cluster.gpu_share, cluster.slots) == expected


def test_a_cluster_without_the_device_is_refused():
    with pytest.raises(PmmoError, match=r"device is 'cuda'.* 0 GPUs and 8 CPUs"):
        measure(cluster_with(8, 0), Engine("ray"), "cuda")
    with pytest.raises(PmmoError, match=r"device is 'cpu'.* 0 GPUs and 0 CPUs"):
        measure(cluster_with(0, 0), Engine("ray"), "auto")


def test_builds_of_one_release_are_one_version():
    assert public_version("2.13.0+cpu") == public_version("2.13.0+cu130") == "2.13.0"


def test_machines_of_one_row_are_described_together():
    one = {"cpu": "A", "cores": 8, "gpu": None}
    assert unite([one, one]) == one
    assert unite([one, one | {"cpu": "B"}]) == one | {"cpu": "A + B"}


class Reference:
    def __init__(self, value):
        self.value = value


class RayStandIn:
    """The part of Ray that is used, in this process: every task runs twice, as after a death."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause):
                self.cause = cause

        class RayActorError(RayError):
            pass

        class GetTimeoutError(RayError):
            pass

    def __init__(self, gives_up=False):
        self.gives_up, self.stopped, self.options = gives_up, [], []

    def remote(self, **options):
        self.options.append(options)

        def wrap(target):
            if isinstance(target, type):
                return SimpleNamespace(remote=lambda: self.actor(target()))
            return SimpleNamespace(remote=lambda *arguments: self.call(target, arguments))

        return wrap

    def actor(self, instance):
        def method(name):
            return SimpleNamespace(
                remote=lambda *arguments: Reference(getattr(instance, name)(*arguments))
            )

        return SimpleNamespace(tell=method("tell"), take=method("take"))

    def call(self, function, arguments):
        precision = torch.get_float32_matmul_precision()
        try:
            function(*arguments)
            answer = function(*arguments)
        except PmmoError as error:
            answer = self.exceptions.RayTaskError(error)
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.set_flush_denormal(False)
        return Reference(answer)

    def put(self, value):
        return value

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference, timeout=None):
        if timeout is None and self.gives_up:
            raise self.exceptions.RayError
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def cancel(self, reference, force):
        self.stopped.append(reference)

    def kill(self, actor):
        self.stopped.append(actor)


def test_a_cycle_that_ran_twice_is_told_and_kept_once():
    ray, told, kept = RayStandIn(), Counter(), []
    settings = row("gmu", cycles=3)
    run_on_ray(
        Cluster(ray, "cpu", 0.0, 2),
        settings,
        SPLITS,
        [1, 2],
        lambda cycle, _: told.update([cycle]),
        lambda cycle, machine: kept.append((cycle, machine)),
    )
    assert told == {1: settings.epochs, 2: settings.epochs}
    assert [cycle.summary["cycle"] for cycle, _ in kept] == [1, 2]
    assert kept[0][1]["workers"] == 2
    task = next(options for options in ray.options if "num_gpus" in options)
    assert (task["num_cpus"], task["num_gpus"], task["max_retries"]) == (1, 0.0, 3)


def test_a_cycle_that_ray_gives_up_is_named_and_the_others_are_stopped():
    ray = RayStandIn(gives_up=True)
    with pytest.raises(PmmoError, match=r"gave cycle 0 up: RayError.*run again"):
        run_on_ray(Cluster(ray, "cpu", 0.0, 2), row("gmu"), SPLITS, [0, 1], print, print)
    assert len(ray.stopped) == 2  # cycle 1 and the actor
