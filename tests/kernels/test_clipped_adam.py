"""ClippedAdam against Pyro's own, which passes over the parameters operation by operation."""

import pyro.optim.clipped_adam
import pytest
import torch
from torch import nn

from pmmo.kernels.clipped_adam import ClippedAdam


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
    assert optimiser.param_groups[0]["steps"] == 0
    first.grad = torch.ones_like(first)
    with pytest.raises(ValueError, match="1 of 2 parameters have no gradient"):
        optimiser.step()
