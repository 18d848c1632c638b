"""Cycles of training on tiny learnable movies: what they give, keep, and leave as it was."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import load_file
from sklearn.metrics import f1_score

from pmmo.analysis.metrics import f1_per_genre, f1_scores
from pmmo.config.engine import Engine
from pmmo.config.settings import Settings, save_settings
from pmmo.core.errors import PmmoError
from pmmo.data.extract import write_catalogue
from pmmo.data.movies import TYPES
from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes
from pmmo.params import load_params
from pmmo.training import cycles
from pmmo.training import variant as runs
from pmmo.training.cycles import run_cycles
from pmmo.training.device import choose_device, choose_matmul
from pmmo.training.evaluation import genre_scores, predict, scores
from pmmo.training.loop import batches, train_cycle, train_cycles

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
ROWS = {"pmmo": "pmmo-kl-l2", "mmo": "mmo", "gmu": "gmu", "released": "pmmo-released"}
T, I, H, G = 5, 7, 4, 3
SIZES = {"train": 40, "dev": 15, "test": 15}
TINY = {"width": H, "maxout_units": 6, "epochs": 2, "batch_size": 16, "cycles": 2, "dropout": 0.2}


@pytest.fixture(autouse=True)
def as_the_stage_runs():
    """Pyro's checks are off in the training stage (prepare_process); restored afterwards."""
    with pyro.validation_enabled(False):
        yield


def row(system, **changes):
    return replace(PARAMS.rows[ROWS[system]], **(TINY | {"device": "cpu"} | changes))


def movies():
    """Genres that two text columns and one image column decide."""
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for name, n in SIZES.items():
        text = torch.randn(n, T, generator=generator)
        image = torch.randn(n, I, generator=generator)
        genres = torch.stack([text[:, 0] > 0, text[:, 1] > 0, image[:, 0] > 0], 1).float()
        splits[name] = Batch(text, image, genres)
    return splits


SPLITS = movies()


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())


def same_cycles(first, second):
    assert first.summary == second.summary
    assert first.curves == second.curves
    assert equal(first.predictions, second.predictions)
    assert equal(first.state, second.state)


@settings(deadline=None)
@given(movies=st.integers(2, 300), size=st.integers(3, 64), seed=st.integers(0, 1000))
def test_batches_are_a_permutation_in_equal_parts(movies, size, seed):
    parts = batches(movies, size, torch.Generator().manual_seed(seed))
    lengths = [len(part) for part in parts]
    assert sorted(torch.cat(parts).tolist()) == list(range(movies))
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-movies // size)
    assert min(lengths) >= 2  # batch norm needs two


@settings(deadline=None)
@given(
    rows=st.integers(1, 12),
    genres=st.integers(2, 5),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_counted_scores_are_scikit_learns(rows, genres, share, seed):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(rows, genres, generator=generator)
    true = (torch.rand(rows, genres, generator=generator) < share).float()
    args = (true.numpy().astype(int), (probabilities > 0.4).numpy().astype(int))
    assert scores(probabilities, true, 0.4) == pytest.approx(f1_scores(*args), abs=1e-12)
    found = genre_scores(probabilities, true, 0.4)
    assert found == pytest.approx(f1_per_genre(*args), abs=1e-12)


@pytest.mark.parametrize("system", ROWS)
def test_a_cycle_is_reproducible_stands_alone_and_leaves_the_random_state(system):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = train_cycle(row(system), SPLITS, 0)
    alone = train_cycle(row(system), SPLITS, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002
    torch.manual_seed(99)
    same_cycles(train_cycle(row(system), SPLITS, 0), first)
    same_cycles(train_cycle(row(system), SPLITS, 1), alone)
    assert not torch.equal(first.predictions["test"], alone.predictions["test"])
    moved = train_cycle(row(system, seed=1), SPLITS, 0)
    assert equal(moved.predictions, alone.predictions)  # seed + cycle is all that counts


@pytest.mark.parametrize("system", ROWS)
def test_every_system_learns(system):
    found = train_cycle(row(system, epochs=25, dropout=0.0, learning_rate=0.02), SPLITS, 0)
    losses = [line["loss_c"] for line in found.curves]
    assert losses[-1] < 0.8 * losses[0]
    assert found.curves[-1]["train_weighted"] > 0.7


@pytest.mark.parametrize("system", ["gmu", "pmmo"])
@pytest.mark.parametrize("kept", ["best", "last"])
def test_kept_epoch(system, kept):
    heard = []
    found = train_cycle(
        row(system, epochs=8, kept_epoch=kept), SPLITS, 0, lambda *line: heard.append(line)
    )
    f1 = [line["dev_weighted"] for line in found.curves]
    assert heard == [(0, epoch, value) for epoch, value in enumerate(f1, 1)]
    assert found.summary["best_epoch"] == (int(np.argmax(f1)) + 1 if kept == "best" else 8)
    kept_f1 = f1[found.summary["best_epoch"] - 1]
    assert found.summary["dev"]["weighted"] == kept_f1
    decided = found.predictions["dev"].numpy() > 0.5
    expected = f1_score(SPLITS["dev"].genres.numpy(), decided, average="weighted", zero_division=0)
    assert kept_f1 == pytest.approx(expected)


def test_samples_are_averaged_when_the_row_predicts_by_them():
    found = train_cycle(row("pmmo", prediction="samples", posterior_samples=3), SPLITS, 0)
    assert torch.equal(found.predictions["test"], found.predictions["test_samples"])


@pytest.mark.parametrize("system", ROWS)
def test_a_loss_that_is_not_finite_names_the_row(system):
    broken = Batch(SPLITS["train"].text * float("nan"), *SPLITS["train"][1:])
    with pytest.raises(PmmoError, match=rf"^{ROWS[system]}, cycle 1: the loss is nan in epoch 1"):
        train_cycle(row(system), SPLITS | {"train": broken}, 1)


@pytest.mark.parametrize(
    "other",
    [
        "squared_weights",
        "none",
    ],
)
def test_inference_of_the_released_code_changes_nothing_that_is_tested(other):
    found = {
        kind: train_cycle(row("released", inference=kind), SPLITS, 0) for kind in ("elbo", other)
    }
    tested = {
        kind: {k: v for k, v in cycle.state.items() if not k.startswith("lifted.")}
        for kind, cycle in found.items()
    }
    assert {n.split(".")[0] for n in tested[other]} == {"classifier", "fusion", "inputs"}
    guides = {k: v for k, v in found["elbo"].state.items() if k.startswith("lifted.guide")}
    assert not any(torch.equal(v, found[other].state[k]) for k, v in guides.items())
    assert equal(tested[other], tested["elbo"])
    assert equal(found[other].predictions, found["elbo"].predictions)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("system", ["pmmo", "released"])
def test_workers_change_no_number_and_stored_cycles_are_taken_up(tmp_path, system):
    settings = row(system, cycles=3)
    one = run_cycles(settings, SPLITS, tmp_path / "one", 1)
    two = run_cycles(settings, SPLITS, tmp_path / "two", 2)
    for a, b in zip(one, two, strict=True):
        same_cycles(a, b)
    store = tmp_path / "two"
    times = {p: p.stat().st_mtime_ns for p in store.glob("*/*")}
    for file in (store / "cycle-1").iterdir():
        file.unlink()
    (store / "cycle-1").rmdir()
    (store / ".pmmo-0a1b2c3d.tmp").mkdir()  # of a run that was killed
    again = run_cycles(settings, SPLITS, store, 2)
    for a, b in zip(one, again, strict=True):
        same_cycles(a, b)
    for path, before in times.items():
        assert (path.stat().st_mtime_ns == before) == (path.parent.name != "cycle-1")
    assert sorted(p.name for p in store.iterdir()) == ["cycle-0", "cycle-1", "cycle-2"]


def test_a_worker_that_dies_is_named(tmp_path, monkeypatch):
    def train(settings, splits, group, report=None):
        if group == [1]:
            os._exit(3)
        return train_cycles(settings, splits, group, report)

    monkeypatch.setattr(cycles, "train_cycles", train)
    with pytest.raises(PmmoError, match="process of cycle 1 ended with code 3"):
        run_cycles(row("gmu", cycles=2), SPLITS, tmp_path, 2)
    assert not (tmp_path / "cycle-1").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cycle_that_fails_says_why(tmp_path, workers):
    broken = Batch(SPLITS["train"].text * float("nan"), *SPLITS["train"][1:])
    with pytest.raises(PmmoError, match=r"^gmu, cycle \d: the loss is nan"):
        run_cycles(row("gmu"), SPLITS | {"train": broken}, tmp_path, workers)
    assert list(tmp_path.iterdir()) == []


def write_data(folder):
    folder.mkdir()
    whole = [torch.cat([SPLITS[n][i] for n in SIZES]).numpy() for i in range(3)]
    for key, kind, values in zip(TYPES, ("<f4", "<f4", "u1"), whole, strict=True):
        save_file({key: np.ascontiguousarray(values, kind)}, folder / f"{key}.safetensors")
    ends = np.cumsum([0, *SIZES.values()]).tolist()
    catalogue = {
        "ids": [str(i) for i in range(ends[-1])],
        "genres": ["a", "b", "c"],
        "splits": {name: ends[i : i + 2] for i, name in enumerate(SIZES)},
        "provenance": {"kind": "synthetic", "source": "synthetic"},
        "nan_text": {"policy": "zeros", "count": 0, "ids": []},
        "unlabelled": 0,
    }
    write_catalogue(folder, catalogue)


@pytest.mark.parametrize("system", ROWS)
def test_train_row_writes_a_model_that_gives_its_predictions(tmp_path, monkeypatch, system):
    precision = torch.get_float32_matmul_precision()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")
    write_data(tmp_path / "data")
    settings = row(system)
    save_settings(settings, tmp_path / "settings.json")
    output = tmp_path / "runs" / settings.name
    try:
        summary = runs.train_row(tmp_path / "settings.json", tmp_path / "data", output)
        names = {"settings.json", "summary.json", "environment.json", "curves.csv", "model.json"}
        names |= {"README.md", "decision.json", "far.safetensors"}
        if settings.epoch_predictions:
            names |= {"protocols-0.safetensors", "protocols-1.safetensors"}
        names |= {"model.safetensors", "predictions-0.safetensors", "predictions-1.safetensors"}
        if settings.keep_models == "all":
            other = 1 - json.loads((output / "model.json").read_text())["cycle"]
            names.add(f"model-{other}.safetensors")
        assert {p.name for p in output.iterdir()} == names
        assert not list(tmp_path.rglob("*.tmp"))
        (store,) = (tmp_path / runs.STORE).iterdir()  # until DVC has the row
        assert sorted(p.name for p in store.iterdir()) == ["cycle-0", "cycle-1", "row"]
        on_disk = json.loads((output / "summary.json").read_text())  # rounded
        assert on_disk.keys() == summary.keys()
        for ours, whole in zip(on_disk["cycles"], summary["cycles"], strict=True):
            assert ours["test"] == pytest.approx(whole["test"], abs=1e-6)
        assert summary["rows"] == SIZES
        assert len((output / "curves.csv").read_text().splitlines()) == 1 + 2 * 2
        card = json.loads((output / "model.json").read_text())
        best = max(summary["cycles"], key=lambda cycle: cycle["dev"]["weighted"])
        assert (card["cycle"], card["epoch"]) == (best["cycle"], best["best_epoch"])
        with torch.random.fork_rng():
            model = build_system(Settings(**card["settings"]), Sizes(**card["sizes"]))
        model.load_state_dict(load_file(output / "model.safetensors"))
        found, gate = predict(model, SPLITS["test"].text, SPLITS["test"].image)
        stored = load_file(output / f"predictions-{card['cycle']}.safetensors")
        assert torch.equal(found, stored["test"])
        assert torch.equal(gate, stored["test_gate"])
        assert stored["test"].shape == (SIZES["test"], G)
        assert ("test_samples" in stored) == (system == "pmmo")
        assert (summary["random_weights"] > 0) == (system == "pmmo")
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(False)


def test_a_set_of_one_movie_is_refused_before_training(tmp_path):
    folder = tmp_path / "data"
    write_data(folder)
    path = folder / "movies.json"
    catalogue = json.loads(path.read_text())
    dev, test = catalogue["splits"]["dev"], catalogue["splits"]["test"]
    catalogue["splits"] |= {"dev": [dev[0], test[1] - 1], "test": [test[1] - 1, test[1]]}
    path.write_text(json.dumps(catalogue))
    with pytest.raises(PmmoError, match="test has one movie, and batch norm needs two"):
        runs.load_splits(folder, torch.device("cpu"))


def test_products_on_a_gpu_keep_the_precision_of_float32():
    """On a CPU `medium` is chosen only where it is as precise; on a GPU it would be TF32."""
    precision = torch.get_float32_matmul_precision()
    try:
        assert choose_matmul(torch.device("cuda")) == "highest"
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(("stage", "name", "workers"), [("train", "gmu", 1), ("experiment", "", 2)])
def test_an_interrupted_stage_says_that_finished_cycles_are_kept(tmp_path, stage, name, workers):
    (tmp_path / "settings").mkdir()
    save_settings(row("gmu", cycles=1000), tmp_path / f"settings/{name or stage}.json")
    (tmp_path / "settings/engine.json").write_text(json.dumps(asdict(Engine())))
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data/tensors")
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", *filter(None, [name])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root), "PMMO_WORKERS": str(workers)},
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background, a shell may have it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and not list(tmp_path.glob(".work/cycles/*/cycle-0")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(f"{stage}: interrupted; finished work is kept")
    assert "Traceback" not in errors
    assert list(tmp_path.glob(".work/cycles/*/cycle-0/cycle.json"))
    assert not (tmp_path / "runs").exists()


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PmmoError, match=r"torch finds no CUDA device; use device: auto or cpu"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
