"""Test probabilities of each epoch: what they are, and that nothing which chooses reads them."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from pmmo.config.settings import save_settings
from pmmo.core.errors import PmmoError
from pmmo.model.build import build_system
from pmmo.training.cycle_store import load_cycle, save_cycle
from pmmo.training.evaluation import predict
from pmmo.training.loop import sizes_of, train_cycle, train_cycles
from pmmo.training.variant import load_splits, train_row
from tests.training.test_training import (
    SPLITS,
    G,
    as_the_stage_runs,
    equal,
    row,
    same_cycles,
    write_data,
)

SYSTEMS = ("gmu", "pmmo")
__all__ = ["as_the_stage_runs"]  # a fixture, for every test here


def trained(system: str, splits=SPLITS, **changes):
    changes = {"epochs": 4, "epoch_predictions": True} | changes
    return train_cycle(row(system, **changes), splits, 0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_storing_them_changes_no_bit_of_anything_else(system):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with_them, without = trained(system), trained(system, epoch_predictions=False)
    assert torch.equal(torch.get_rng_state(), before)
    same_cycles(with_them, without)
    assert without.protocols == {}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kept", ["best", "last"])
def test_they_are_the_predictions_of_each_epoch(system, kept):
    found = trained(system, kept_epoch=kept)
    epochs = found.protocols["test_epochs"]
    assert epochs.shape == (4, len(SPLITS["test"].text), G)
    assert torch.equal(epochs[found.summary["best_epoch"] - 1], found.predictions["test"])
    for epoch in (1, 3):  # training that ends there; elbo kl would weigh its KL otherwise
        if system != "pmmo":
            shorter = trained(system, kept_epoch="last", epochs=epoch)
            assert torch.equal(epochs[epoch - 1], shorter.predictions["test"])
    assert all(not torch.equal(*pair) for pair in pairwise(epochs))


@pytest.mark.parametrize("own", ["evaluation_set", "running"])
def test_the_other_batch_norm_statistics_are_those_of_the_same_model(own):
    found = trained("mmo", batch_norm_eval=own)
    other = {"evaluation_set": "running", "running": "evaluation_set"}[own]
    with torch.random.fork_rng():
        system = build_system(row("mmo", batch_norm_eval=other), sizes_of(SPLITS))
    system.load_state_dict(found.state)
    expected, _ = predict(system, SPLITS["test"].text, SPLITS["test"].image)
    assert torch.equal(found.protocols["test_other_statistics"], expected)
    assert not torch.equal(expected, found.predictions["test"])


def test_without_batch_norm_there_are_no_other_statistics():
    assert list(trained("gmu", batch_norm=False).protocols) == ["test_epochs"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_chosen_does_not_depend_on_the_test_movies(system):
    """Labels without sense, and other movies: epoch, model, curves and dev stay as they are."""
    test = SPLITS["test"]
    nonsense = test._replace(genres=1 - test.genres, text=-3 * test.text)
    first, second = trained(system), trained(system, SPLITS | {"test": nonsense})
    assert first.summary["best_epoch"] == second.summary["best_epoch"]
    assert first.curves == second.curves
    assert equal(first.state, second.state)
    assert torch.equal(first.predictions["dev"], second.predictions["dev"])
    assert not torch.equal(first.protocols["test_epochs"], second.protocols["test_epochs"])


def test_cycles_that_train_together_each_have_their_own():
    together = train_cycles(row("gmu", epoch_predictions=True), SPLITS, [0, 1])
    for cycle, found in enumerate(together):
        alone = train_cycle(row("gmu", epoch_predictions=True), SPLITS, cycle)
        torch.testing.assert_close(found.protocols, alone.protocols, atol=1e-5, rtol=1e-5)


def test_a_stored_cycle_has_them_or_has_none(tmp_path):
    for name, stored in (("with", True), ("without", False)):
        cycle, folder = trained("gmu", epoch_predictions=stored), tmp_path / name / "cycle-0"
        save_cycle(cycle, {}, folder)
        assert equal(load_cycle(folder).protocols, cycle.protocols)


def test_a_row_keeps_them_in_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")
    write_data(tmp_path / "data")
    for stored in (True, False):
        settings = row("mmo", epoch_predictions=stored)
        save_settings(settings, tmp_path / "settings.json")
        output = tmp_path / f"runs/{stored}"
        train_row(tmp_path / "settings.json", tmp_path / "data", output)
        files = sorted(path.name for path in output.glob("protocols-*"))
        assert files == (["protocols-0.safetensors", "protocols-1.safetensors"] if stored else [])
    for name in ("summary.json", "curves.csv", "model.safetensors", "predictions-0.safetensors"):
        with_them, without = (tmp_path / f"runs/{stored}" / name for stored in (True, False))
        assert with_them.read_bytes() == without.read_bytes()


# ---- train and dev ----


def test_movies_of_dev_follow_those_of_train(tmp_path):
    write_data(tmp_path / "data")
    cpu = torch.device("cpu")
    apart = load_splits(tmp_path / "data", cpu)
    joined = load_splits(tmp_path / "data", cpu, "train+dev")
    for ours, train, dev in zip(joined["train"], apart["train"], apart["dev"], strict=True):
        assert torch.equal(ours, torch.cat([train, dev]))
    for name in ("dev", "test"):
        assert all(map(torch.equal, joined[name], apart[name]))


def test_a_row_on_train_and_dev_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")
    write_data(tmp_path / "data")
    settings = row("gmu", train_on="train+dev", kept_epoch="last")
    save_settings(settings, tmp_path / "settings.json")
    summary = train_row(tmp_path / "settings.json", tmp_path / "data", tmp_path / "runs/x")
    assert summary["rows"] == {"train": 55, "dev": 15, "test": 15}
    assert [cycle["best_epoch"] for cycle in summary["cycles"]] == [2, 2]
    assert "trained on dev, too" in (tmp_path / "runs/x/README.md").read_text()
    plain = replace(settings, train_on="train")
    assert not torch.equal(
        train_cycle(plain, SPLITS, 0).predictions["test"],
        load_file(tmp_path / "runs/x/predictions-0.safetensors")["test"],
    )


def test_dev_chooses_no_epoch_of_a_row_that_trains_on_it():
    with pytest.raises(PmmoError, match=r"gmu: train_on is 'train\+dev'.*set kept_epoch to last"):
        row("gmu", train_on="train+dev")
