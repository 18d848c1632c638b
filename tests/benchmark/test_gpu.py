"""`make gpu` on the CPU at tiny sizes: all of it but the tests marked gpu and the waits."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pyro
import pytest
import torch

from pmmo.benchmark import __main__ as command
from pmmo.benchmark import gpu, gpu_accuracy, gpu_report
from pmmo.benchmark.cases import Case, Shape, paper_settings
from pmmo.core.errors import PmmoError
from pmmo.params import load_params

TINY = Shape(text=5, image=7, genres=3, movies=64)
PARAMS = Path(__file__).parents[2] / "params.yaml"
ROWS = load_params(PARAMS, scale="paper").rows
SETTINGS = {
    name: replace(settings, width=6, batch_size=16, maxout_units=6, epochs=2, cycles=2)
    for name, settings in paper_settings(PARAMS).items()
}
SIZES = gpu.Sizes(
    device="cpu",
    shape=TINY,
    wide=12,
    narrow=8,
    copied=1 << 10,
    precisions=("float32", "bf16"),
    contenders=("pmmo", "together", "bound", "gmu", "torchbnn"),
    profiled=("together",),
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Short turns, and no compiled passes, whose compiler takes a minute on a CPU."""
    monkeypatch.setattr("pmmo.benchmark.runner.TURN_SECONDS", 0.001)
    monkeypatch.setattr(gpu, "REPEATS", 2)
    monkeypatch.setattr(gpu, "SHORT", ("pmmo", "together"))
    with pyro.validation_enabled(False):
        yield


def accuracy():
    return gpu_accuracy.accuracy(ROWS, TINY, 8, "cpu")


def test_a_run_writes_what_it_measured(tmp_path):
    heard = []
    gpu_report.write(tmp_path, gpu.measure(SIZES, SETTINGS, heard.append, accuracy))
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "tests" not in found  # a CPU has no card to run them on
    assert found["waits"] is None
    assert found["repeats"] == {"together": True, "mmo": True, "gmu": True}
    assert [line["contender"] for line in found["steps"][:5]] == list(SIZES.contenders)
    for line in found["steps"]:
        assert line["contender"] == "torchbnn" or line["ms"] > 0
    (part,) = found["profiles"]
    assert 0 < len(part["largest"]) <= gpu.LARGEST
    assert part["largest"][0]["ms"] <= part["kernels_ms"]
    assert set(found["ceilings"]) == {"copy", "float32", "bf16"}
    text = (tmp_path / "gpu.md").read_text()
    for words in ("pmmo-literal", "PM+MO, five cycles together", "equal bit for bit", "TB/s"):
        assert words in text
    assert "LARGE" not in text
    assert heard[-1].startswith("together, width 12, 1 thread")


@pytest.mark.parametrize(("factor", "expected"), [(1.01, 0.01), (math.nan, math.inf)])
def test_float32_agrees_with_float64_and_a_fault_does_not(monkeypatch, factor, expected):
    settings = replace(ROWS["pmmo-v2-l2"], width=8, maxout_units=6, batch_size=16)
    difference, _ = gpu_accuracy.worst(settings, TINY, "cpu")
    assert 0 < difference < 1e-4
    plain = gpu_accuracy.terms_and_gradients

    def faulty(system, batch):
        found = plain(system, batch)
        wrong = factor if batch.text.dtype == torch.float32 else 1.0
        return found | {"d classifier.0.weight": wrong * found["d classifier.0.weight"]}

    monkeypatch.setattr(gpu_accuracy, "terms_and_gradients", faulty)
    difference, where = gpu_accuracy.worst(settings, TINY, "cpu")
    assert (round(difference, 3), where) == (expected, "d classifier.0.weight")


def test_a_device_that_is_wrong_is_named_after_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "render", lambda *_, **values: "# A step")
    line = {"row": "mmo", "difference": 0.5, "where": "loss"}
    with pytest.raises(PmmoError, match="mmo, the tests marked gpu: wrong on this device; see"):
        gpu_report.write(tmp_path, {"accuracy": [line], "tests": {"passed": False, "words": ""}})
    assert (tmp_path / "gpu.md").exists()


def test_a_contender_that_fails_has_its_error():
    numbers = gpu.measured(Case("tf32", SETTINGS["pmmo"], TINY))
    assert numbers == {"error": "KeyError: 'tf32'"}


def test_no_contender_starts_when_the_time_is_up(monkeypatch):
    monkeypatch.setattr(gpu, "measured", lambda case: pytest.fail("started"))
    late = replace(SIZES, budget_seconds=-1.0, profiled=())
    found = gpu.measure(late, SETTINGS, lambda _: None, list)
    assert {line["error"] for line in found["steps"]} == {"not measured: the time was up"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_card_it_says_so(tmp_path):
    with pytest.raises(PmmoError, match="--gpu measures a CUDA card, but torch finds no CUDA"):
        command.main(["--gpu", "--output", str(tmp_path)])
    assert not list(tmp_path.iterdir())
