"""The baseline as a whole, by numpy: its forward pass, loss, steps, and what regularises it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes
from pmmo.params import load_params
from pmmo.training.evaluation import predict
from pmmo.training.loop import train_cycle

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
B, T, I, H, M, G = 9, 5, 7, 4, 6, 3  # M maxout units
SIZES = Sizes(T, I, G, 40)
SMALL = {"width": H, "maxout_units": M, "dropout": 0.0}


def build(name="gmu", dtype=torch.float64, **changes):
    torch.manual_seed(0)
    system = build_system(replace(PARAMS.rows[name], **(SMALL | changes)), SIZES).to(dtype)
    for parameter in system.parameters():  # batch norm's too, away from 1 and 0
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return system


def movies(rows=B, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(rows, T, generator=generator).double() + 2
    image = torch.randn(rows, I, generator=generator).double().relu() * 5
    genres = torch.rand(rows, G, generator=generator) < 0.4
    return Batch(text.to(dtype), image.to(dtype), genres.to(dtype))


def named(system):
    """Name -> array, without axes of length 1 in front of a weight's two or a bias's one."""
    found = {}
    for name, value in system.state_dict().items():
        value = value.detach().numpy()
        keep = 2 if name.endswith("weight") and value.squeeze().ndim == 2 else 1
        found[name] = value.reshape(value.shape[-keep:]) if value.ndim > keep else value
    return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def batch_norm(x, w, name):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def maxout(x, w, name):
    return (x @ w[f"{name}.weight"].T + w[f"{name}.bias"]).reshape(len(x), M, 2).max(2)


def logits_by_hand(w, text, image):
    """GMU paper, equations 1 to 4, on batch-normed inputs, and its maxout MLP (section 3)."""
    x_t, x_v = batch_norm(text, w, "inputs.text"), batch_norm(image, w, "inputs.image")
    h_v = np.tanh(x_v @ w["fusion.image.weight"].T + w["fusion.image.bias"])
    h_t = np.tanh(x_t @ w["fusion.text.weight"].T + w["fusion.text.bias"])
    z = sigmoid(np.hstack([x_t, x_v]) @ w["fusion.gate.weight"].T + w["fusion.gate.bias"])
    h = z * h_v + (1 - z) * h_t
    h = maxout(batch_norm(h, w, "classifier.0"), w, "classifier.1.linear")
    h = maxout(batch_norm(h, w, "classifier.3"), w, "classifier.4.linear")
    return h @ w["classifier.6.weight"].T + w["classifier.6.bias"], z


def test_the_whole_forward_pass_is_the_originals_equations():
    system, batch = build(), movies()
    probabilities, gate = predict(system, batch.text, batch.image)
    w = named(system)
    logits, z = logits_by_hand(w, batch.text.numpy(), batch.image.numpy())
    np.testing.assert_allclose(probabilities.squeeze(), sigmoid(logits), rtol=1e-9)
    np.testing.assert_allclose(gate.squeeze(), z.mean(1), rtol=1e-9)


@pytest.mark.parametrize(("bce", "factor"), [("mean", 1), ("sum", G)])
def test_the_loss_is_one_cross_entropy_of_both_terms(bce, factor):
    system, batch = build(bce=bce), movies()
    logits, _ = logits_by_hand(named(system), batch.text.numpy(), batch.image.numpy())
    p, y = sigmoid(logits), batch.genres.numpy()
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean() * factor
    terms = system.losses(batch, 0)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-9)
    assert set(terms) == {"loss", "loss_c"}  # one objective


def test_the_first_step_is_adams_on_every_parameter():
    system, batch = build(max_norm="none", learning_rate=0.01), movies()
    before = {name: p.detach().clone() for name, p in system.named_parameters()}
    loss = system.losses(batch, 0)["loss"].sum()
    gradients = torch.autograd.grad(loss, list(system.parameters()))
    system.train_step(batch, 0)
    for (name, after), g in zip(system.named_parameters(), gradients, strict=True):
        # Adam's first step: both moments, corrected for bias, are the gradient's own
        expected = before[name] - 0.01 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(after.detach(), expected, rtol=1e-6, atol=1e-7)
        assert not torch.equal(after, before[name]), name


def row_norms(system, part):
    named_weights = getattr(system, part).named_parameters()
    weights = [p for n, p in named_weights if n.endswith("weight") and p.squeeze().ndim > 1]
    return torch.cat([w.detach().norm(dim=-1).flatten() for w in weights])


@pytest.mark.parametrize(
    ("name", "bounded"), [("gmu", ("fusion", "classifier")), ("mmo", ("classifier",))]
)
def test_max_norm_bounds_each_units_incoming_weights_after_a_step(name, bounded):
    bound, batch, single = 0.4, movies(dtype=torch.float32), torch.float32
    free, held = (build(name, single, max_norm=b, learning_rate=0.05) for b in ("none", bound))
    for system in (free, held):
        system.train_step(batch, 0)
    for part in ("fusion", "classifier"):
        assert row_norms(free, part).max() > bound
        assert (row_norms(held, part).max() <= bound * (1 + 1e-6)) == (part in bounded)


def test_a_row_of_pm_mo_bounds_module_c_and_leaves_the_random_weights():
    system = build("pmmo-v2", torch.float32, max_norm=0.4)
    system.train_step(movies(dtype=torch.float32), 0)
    assert row_norms(system, "classifier").max() <= 0.4 * (1 + 1e-6)
    assert max(m.detach().norm(dim=-1).max() for m in system.fusion.guide.mean().values()) > 0.4


# --- Figure 2: what regularisation does where the data overfit ------------------------------------

FEW = {"train": 150, "dev": 200, "test": 20}  # movies, far fewer than weights
LEARNABLE = (20, 60, 4)  # T, I, G
NONE = {"batch_norm": False, "max_norm": "none", "dropout": 0.0}


def noisy_movies(seed):
    """Genres that lie half in the inputs and half in noise."""
    generator = torch.Generator().manual_seed(seed)
    text_width, image_width, genres = LEARNABLE
    by_text = torch.randn(text_width, genres, generator=generator) / text_width**0.5
    by_image = torch.randn(image_width, genres, generator=generator) / image_width**0.5
    splits = {}
    for name, n in FEW.items():
        text = torch.randn(n, text_width, generator=generator)
        image = 3 * torch.randn(n, image_width, generator=generator).relu()
        score = 2 * text @ by_text + (image - image.mean(0)) @ by_image
        score += 2 * torch.randn(n, genres, generator=generator)
        splits[name] = Batch(text, image, (score > 0.5).float())
    return splits


def train_gmu(**changes):
    """Means over cycles: best dev F1, its epoch, the last train - dev gap and training loss."""
    small = {"width": 64, "maxout_units": 64, "epochs": 30, "batch_size": 50, "device": "cpu"}
    settings = replace(PARAMS.rows["gmu"], **(small | {"learning_rate": 5e-3} | changes))
    found = []
    for cycle in range(3):
        curves = train_cycle(settings, noisy_movies(cycle), cycle).curves
        dev = [line["dev_weighted"] for line in curves]
        gap = curves[-1]["train_weighted"] - dev[-1]
        found.append((max(dev), np.argmax(dev) + 1, gap, curves[-1]["loss"]))
    return dict(zip(("best", "epoch", "gap", "loss"), np.mean(found, 0), strict=True))


@pytest.fixture(scope="module")
def unregularised():
    return train_gmu(**NONE)


def test_without_regularisation_the_gmu_overfits_within_a_few_epochs(unregularised):
    regularised = train_gmu(dropout=0.7, max_norm=0.5)
    assert regularised["best"] > unregularised["best"] + 0.02
    assert regularised["epoch"] > unregularised["epoch"] + 5
    assert regularised["gap"] < unregularised["gap"] - 0.01


@pytest.mark.parametrize(
    "method", [{"batch_norm": True}, {"dropout": 0.7}], ids=["batch norm", "dropout"]
)
def test_each_method_alone_raises_and_delays_the_best_dev_score(unregularised, method):
    found = train_gmu(**(NONE | method))
    assert found["best"] > unregularised["best"] + 0.005
    assert found["epoch"] > unregularised["epoch"] + 5


def test_max_norm_alone_keeps_the_training_loss_up(unregularised):
    found = train_gmu(**(NONE | {"max_norm": 0.5}))
    assert found["loss"] > unregularised["loss"] + 0.03
