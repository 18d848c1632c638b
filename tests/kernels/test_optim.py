"""ClippedAdam against Pyro's own, which passes over the parameters operation by operation."""

import pyro.optim.clipped_adam
import pytest
import torch
from torch import nn

from pmmo.kernels import laplace_draw
from pmmo.kernels.clipped_adam import ClippedAdam
from pmmo.kernels.laplace_draw import Along
from pmmo.kernels.laplace_weights import Norm, WeightPosterior, WeightPrior


def start(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3, 4), (5,), ())]


@pytest.mark.parametrize("clip", [10.0, 0.5])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e-7])
def test_same_steps_as_pyro(size, clip):
    ours, theirs = ([nn.Parameter(v.clone()) for v in start(0)] for _ in range(2))
    own = ClippedAdam(ours, lr=5e-3, clip_norm=clip)
    pyros = pyro.optim.clipped_adam.ClippedAdam(theirs, lr=5e-3, clip_norm=clip)
    clipped = False
    for step in range(20):
        for p, q, g in zip(ours, theirs, start(step + 1), strict=True):
            p.grad, q.grad = g * size, g * size
            clipped |= bool((p.grad.abs() > clip).any())
        own.step()
        pyros.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p.data, q.data, rtol=1e-12, atol=1e-14)
    assert clipped == (size == 100.0 or (size == 1.0 and clip == 0.5))


def test_gradients_must_come_together():
    first, second = (nn.Parameter(v) for v in start(0)[:2])
    optimiser = ClippedAdam([first, second], lr=5e-3)
    optimiser.step()  # none at all: nothing to do
    assert optimiser.steps == 0
    first.grad = torch.ones_like(first)
    with pytest.raises(ValueError, match="1 of 2 parameters have no gradient"):
        optimiser.step()


@pytest.mark.parametrize("closed_form", [False, True])
def test_deferred_gradients_take_the_steps_of_full_ones(monkeypatch, closed_form):
    # of 12 weights: two whole blocks and a part
    monkeypatch.setattr(laplace_draw, "DRAW_BLOCK", 5)
    monkeypatch.setattr(laplace_draw, "GRADIENT_BLOCK", 5)

    def train(defer):
        loc, log_scale = (nn.Parameter(v) for v in start(0)[:1] * 2)
        prior = WeightPrior(torch.tensor(0.1).double(), torch.tensor(-1.0).double(), loc.shape)
        deferred = []
        along = Along(prior, closed_form, Norm(2, True), deferred.append if defer else None)
        optimiser = ClippedAdam([loc, log_scale], lr=5e-3, clip_norm=0.7, deferred=deferred)
        torch.manual_seed(0)
        for _ in range(5):
            q = WeightPosterior(loc, log_scale, along)
            loss = q.rsample().sin().sum()
            loss = loss + sum(term for term in q.terms if term is not None)
            optimiser.zero_grad()
            loss.backward()
            assert (loc.grad is None) == defer
            optimiser.step()
        return loc.detach(), log_scale.detach()

    for ours, full in zip(train(True), train(False), strict=True):
        assert torch.equal(ours, full)
        assert not torch.equal(ours, start(0)[0])


def test_two_backward_passes_before_a_step_are_refused():
    loc, log_scale = (nn.Parameter(v) for v in start(0)[:1] * 2)
    prior = WeightPrior(torch.tensor(0.1).double(), torch.tensor(-1.0).double(), loc.shape)
    deferred = []
    optimiser = ClippedAdam([loc, log_scale], lr=5e-3, deferred=deferred)
    for _ in range(2):
        q = WeightPosterior(loc, log_scale, Along(prior, False, None, deferred.append))
        q.rsample().sum().backward()
    with pytest.raises(ValueError, match="twice"):
        optimiser.step()
