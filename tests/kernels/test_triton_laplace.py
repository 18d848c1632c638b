"""Triton's passes over random weights against the plain ones.

On the card where there is one, else in Triton's interpreter on the CPU (tests/conftest.py).
"""

import math

import pytest
import torch
from scipy.stats import kstest, laplace
from torch import nn

from pmmo.kernels import laplace_draw
from pmmo.kernels.clipped_adam import ClippedAdam
from pmmo.kernels.laplace_blocks import Factors, Norm, Wanted
from pmmo.kernels.laplace_draw import Along, Passes, draw
from pmmo.kernels.random_streams import Streams, draw_seeds
from pmmo.model.systems import Batch
from pmmo.training.loop import train_cycle, train_cycles
from tests.training.test_together import close as same_training
from tests.training.test_training import SPLITS, as_the_stage_runs, row

triton = pytest.importorskip(
    "triton", reason="comes with torch's CUDA builds; or pip install triton"
)
kernels = pytest.importorskip("pmmo.kernels.triton_laplace")
tl, from_bits = triton.language, kernels.from_bits

__all__ = ["as_the_stage_runs"]  # a fixture, for every test here
pytestmark = [pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")]  # of Triton 3.9
pytestmark += [pytest.mark.gpu] if torch.cuda.is_available() else []
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PENALTIES = (None, Norm(1, False), Norm(2, False), Norm(1, True), Norm(2, True))
CYCLES = (torch.Size(), torch.Size([3]))


@pytest.fixture
def everywhere(monkeypatch):
    """`compile` chooses the kernels on this device too."""
    monkeypatch.setattr(laplace_draw, "in_triton", lambda _, along: along and along.compile)


def normal(*shape, seed=0):
    """Random numbers that do not depend on the device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def streams_of(cycles):
    if not cycles:
        return None
    streams = Streams(DEVICE)
    for cycle in range(*cycles):
        torch.manual_seed(cycle)
        streams.add()
    return streams


def close(found, expected, tolerance=1e-5):
    """To `tolerance` of the largest value."""
    size = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * size)


def values(cycles, shape=(61, 53)):
    """loc, log_scale, m, log_s; some locations lie at their prior's."""
    loc, log_scale = normal(*cycles, *shape), normal(*cycles, *shape, seed=1) - 1
    m, log_s = normal(*cycles, seed=2), normal(*cycles, seed=3)
    with torch.no_grad():
        loc.view(*cycles, -1)[..., 0] = m
    return loc, log_scale, m, log_s


@pytest.mark.parametrize("cycles", CYCLES, ids=str)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("closed_form", [False, True])
def test_terms_and_gradients_are_those_of_the_plain_passes(
    everywhere, monkeypatch, closed_form, penalty, cycles
):
    """At the same noise, which the plain pass takes from the kernel's weights."""
    inputs = [v.requires_grad_() for v in values(cycles)]
    loc, log_scale, *prior = inputs
    streams = streams_of(cycles)

    def evaluate(compile):
        theta, *terms = draw(
            loc, log_scale, tuple(prior), Along(closed_form, penalty, compile), streams
        )
        terms = [term for term in terms if term is not None]
        loss = theta.square().sum() + sum(k * t.sum() for k, t in enumerate(terms, 2))
        return [theta, *terms, *torch.autograd.grad(loss, inputs)]

    found = evaluate(True)
    eps = ((found[0] - loc) / log_scale.exp()).detach().double()
    u = (-eps.sign() * torch.exp(-eps.abs())).float().view(*cycles, -1)
    monkeypatch.setattr(laplace_draw, "noise_source", lambda *_: lambda block: block.copy_(u))
    for ours, theirs in zip(found, evaluate(False), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(("cycles", "clip"), [*zip(CYCLES, (10.0, 0.5), strict=True)], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("closed_form", [False, True])
def test_steps_are_those_of_clipped_adam(
    everywhere, monkeypatch, clip, closed_form, penalty, cycles
):
    """Gradient, clipping and Adam at once, beside a parameter with an ordinary gradient."""
    start = values(cycles, (7, 30))

    def train(deferring):
        parameters = [nn.Parameter(v.clone()) for v in (*start, normal(4))]
        loc, log_scale, m, log_s, other = parameters
        optimiser = ClippedAdam(parameters, lr=5e-3, clip_norm=clip)
        for step in range(3):
            if deferring:
                optimiser.zero_grad()
            else:  # without a place for deferred gradients
                super(ClippedAdam, optimiser).zero_grad()
            torch.manual_seed(step)
            drawn = draw(
                loc, log_scale, (m, log_s), Along(closed_form, penalty, True), streams_of(cycles)
            )
            theta, *terms = drawn
            loss = sum(t.sum() for t in terms if t is not None) + 3 * theta.square().sum()
            (loss + other.square().sum()).backward()
            assert (loc.grad is None) is deferring
            optimiser.step()
        return parameters

    for ours, theirs, before in zip(train(True), train(False), (*start, normal(4)), strict=True):
        close(ours - before, theirs - before, 1e-4)  # of what three steps moved
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_update_is_the_plain_gradient_and_pyros_step():
    loc, log_scale, m, _ = values(CYCLES[1])
    theta, by_theta = loc + normal(*loc.shape, seed=5), normal(*loc.shape, seed=6)
    per_cycle = [normal(3, 1, seed=s) for s in (7, 8, 9)]
    factors = Factors(
        per_cycle[0], m.view(3, 1), per_cycle[1], None, None, per_cycle[2], Norm(2, True)
    )
    gradient = kernels.WeightGradient(loc, log_scale, theta, by_theta, factors)
    passes = Passes(DEVICE, CYCLES[1], None)
    expected = passes.gradient(loc, log_scale, theta, by_theta, factors)
    for ours, theirs in zip(gradient.dense(), expected, strict=True):
        close(ours, theirs)
    plain = [nn.Parameter(v.clone()) for v in (loc, log_scale)]
    optimiser = ClippedAdam(plain, lr=5e-3, clip_norm=1.0)
    for p, g in zip(plain, expected, strict=True):
        p.grad = g
    optimiser.step()
    moments = [torch.zeros_like(loc) for _ in range(4)]
    first, second = 1 - 0.9, 1 - 0.999
    gradient.apply(moments, 1.0, (0.9, 0.999), 1e-8, 5e-3 * math.sqrt(second) / first)
    for ours, theirs in zip((loc, log_scale), plain, strict=True):
        torch.testing.assert_close(ours, theirs.data, rtol=1e-5, atol=1e-6)


def test_draws_are_laplace_and_never_far_out():
    loc, log_scale = (
        torch.full((40, 499), 0.5, device=DEVICE),
        torch.full((40, 499), -0.8, device=DEVICE),
    )
    theta = torch.empty_like(loc)
    sums = kernels.draw(
        loc, log_scale, theta, None, None, torch.tensor([3], device=DEVICE), torch.Size()
    )
    assert sums.keys() == {"noise", "log_b", "spread"}
    draws = theta.double().cpu().flatten().numpy()
    assert kstest(draws, laplace(0.5, math.exp(-0.8)).cdf).pvalue > 0.01
    eps = (theta - loc).abs() / log_scale.exp()
    assert eps.max() < 31 * math.log(2) + 0.01  # u is 2^-31 or larger
    torch.testing.assert_close(sums["noise"], -eps.sum())


@triton.jit
def convert(words, out):
    i = tl.arange(0, 4)
    tl.store(out + i, from_bits(tl.load(words + i)))


def test_no_random_bits_give_zero():
    words = torch.tensor([0, -1, 2**31 - 1, -(2**31)], dtype=torch.int32, device=DEVICE)
    u = torch.empty(4, device=DEVICE)
    convert[(1,)](words, u)
    assert u.tolist() == [2.0**-31, -(2.0**-31), 1.0, -1.0]


def test_a_cycles_numbers_do_not_depend_on_its_company():
    """Each from the seed that its own stream gives."""
    loc, log_scale = torch.zeros(3, 5000, device=DEVICE), torch.zeros(3, 5000, device=DEVICE)
    theta, wanted = torch.empty_like(loc), Wanted(False, True, None)
    m = torch.zeros(3, device=DEVICE)
    seeds = draw_seeds(loc, streams_of(CYCLES[1]))
    sums = kernels.draw(loc, log_scale, theta, m, wanted, seeds, CYCLES[1])
    for cycle in range(3):
        torch.manual_seed(cycle)
        own = torch.empty(5000, device=DEVICE)
        seed = draw_seeds(own, None)
        alone = kernels.draw(
            loc[cycle], log_scale[cycle], own, m[cycle], wanted, seed, torch.Size()
        )
        assert torch.equal(own, theta[cycle])
        for name, value in alone.items():
            assert torch.equal(value, sums[name][cycle])
    assert len({float(t[0]) for t in theta}) == 3


@pytest.mark.usefixtures("everywhere")
def test_cycles_together_are_those_trained_apart():
    """Whole trainings of PM+MO, whose posteriors have no gradient tensors."""
    settings = row("pmmo", elbo="v2", compile=True, device=DEVICE.type, epochs=1)
    splits = {name: Batch(*(x.to(DEVICE) for x in batch)) for name, batch in SPLITS.items()}
    for found in train_cycles(settings, splits, [0, 2]):
        same_training(found, train_cycle(settings, splits, found.summary["cycle"]), 1e-4)


def test_two_gradients_in_one_step_are_refused(everywhere):
    loc, log_scale, m, log_s = (nn.Parameter(v) for v in values(torch.Size(), (4, 5)))
    optimiser = ClippedAdam([loc, log_scale], lr=0.01)
    along = Along(False, None, True)
    optimiser.zero_grad()
    twice = sum(draw(loc, log_scale, (m, log_s), along).theta.sum() for _ in range(2))
    with pytest.raises(ValueError, match="two deferred gradients in one step"):
        twice.backward()
    optimiser.zero_grad()
    (draw(loc, log_scale, (m, log_s), along).theta.sum() + loc.sum()).backward()
    with pytest.raises(ValueError, match="both a deferred gradient and another"):
        optimiser.step()
