"""`pmmo-released` step by step: which gradient moves what, and when (docs/released-code.md)."""

from dataclasses import replace
from pathlib import Path

import pyro.optim.clipped_adam
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes
from pmmo.params import load_params

ROW = load_params(Path(__file__).parents[2] / "params.yaml").rows["pmmo-released"]
B, T, I, G = 8, 5, 7, 3


def build(inference="elbo", **changes):
    small = {"width": 4, "maxout_units": 4, "dropout": 0.0, "inference": inference}
    torch.manual_seed(0)
    return build_system(replace(ROW, **(small | changes)), Sizes(T, I, G, 40))


def movies(seed):
    generator = torch.Generator().manual_seed(seed)
    text, image = (torch.randn(B, n, generator=generator) for n in (T, I))
    return Batch(text, image, (torch.rand(B, G, generator=generator) < 0.4).float())


def of_a(system):
    """The deterministic fusion and its batch norm: what C's input is made of."""
    return [*system.inputs.parameters(), *system.fusion.parameters()]


def copies(parameters):
    return [p.detach().clone() for p in parameters]


def test_the_fusion_moves_one_step_late_by_the_previous_batchs_cross_entropy():
    system = build()
    start, first_c = copies(of_a(system)), copies(system.classifier.parameters())
    batch = movies(1)
    z = system.fuse(*system.inputs(batch.text, batch.image), sample=False).z
    loss = binary_cross_entropy_with_logits(system.classifier(z), batch.genres)
    gradients = torch.autograd.grad(loss, of_a(system))

    system.train_step(batch, 0)
    assert all(map(torch.equal, of_a(system), start))  # nothing yet
    pairs = zip(system.classifier.parameters(), first_c, strict=True)
    assert not all(torch.equal(p.detach(), before) for p, before in pairs)

    expected = [torch.nn.Parameter(p) for p in start]
    for p, g in zip(expected, gradients, strict=True):
        p.grad = g.clone()
    lr = system.settings.learning_rate
    pyro.optim.clipped_adam.ClippedAdam(expected, lr=lr, clip_norm=10.0).step()
    system.train_step(movies(2), 0)
    for ours, theirs in zip(of_a(system), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("other", ["squared_weights", "none"])
def test_inference_reaches_no_prediction_step_by_step(other):
    systems = {kind: build(kind) for kind in ("elbo", other)}
    guides = {kind: copies(system.lifted.guide.parameters()) for kind, system in systems.items()}
    for step in range(4):
        for system in systems.values():
            torch.manual_seed(step)
            system.train_step(movies(step), 0)
        outputs = [s.predict(*movies(9)[:2])[0] for s in systems.values()]
        assert torch.equal(*outputs)
    trained = systems["elbo"].lifted.guide.parameters()
    assert not any(map(torch.equal, trained, guides["elbo"]))  # inference did its work


def test_module_cs_gradient_is_clipped_to_a_norm():
    system = build(gradient_norm=1e-12, weight_decay=0.0)
    before = copies(system.classifier.parameters())
    system.train_step(movies(1), 0)
    # AdamW divides by |g| + 1e-6: a gradient of 1e-12 moves a weight by a millionth of a step
    for p, start in zip(system.classifier.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), start, rtol=0, atol=1e-7)


def test_the_settings_are_those_of_the_released_configuration():
    assert (ROW.threshold, ROW.kept_epoch, ROW.batch_norm_eval) == (0.3, "last", "running")
    assert ROW.maxout_pieces == 5
    assert (ROW.gradient_norm, ROW.weight_decay) == (20.0, 0.01)
    assert ROW.learning_rate == ROW.classifier_learning_rate == 0.005
    assert ROW.bce == "mean"
