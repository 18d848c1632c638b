"""Weight distributions against torch's Laplace: values, every gradient, the draw, the KL."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, laplace
from torch.distributions import Independent, Laplace, kl_divergence

from pmmo.kernels import laplace_draw, random_streams
from pmmo.kernels.laplace_blocks import Norm
from pmmo.kernels.laplace_weights import WeightPosterior, WeightPrior, fused

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)
LOCATIONS = st.floats(-3, 3)
LOG_SCALES = st.floats(-3, 2)


def leaf(value):
    return value.clone().detach().requires_grad_()


def parameters(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(shape, generator=generator, dtype=torch.float64)
    log_scale = torch.randn(shape, generator=generator, dtype=torch.float64) - 1
    return leaf(loc), leaf(log_scale)


def scalar(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def plain(loc, log_scale, shape=None):
    if shape is not None:
        loc, log_scale = loc.expand(shape), log_scale.expand(shape)
    return Independent(Laplace(loc, log_scale.exp()), loc.ndim)


def pair(loc, log_scale, **along):
    """A posterior and some prior, evaluated together."""
    m = torch.zeros((), dtype=loc.dtype)
    prior = WeightPrior(m, m, loc.shape)
    return fused(WeightPosterior(loc, log_scale), prior, **({"closed_form": False} | along))


def same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def value_and_gradients(value, inputs):
    return value.detach(), *torch.autograd.grad(value, inputs, retain_graph=True)


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, seed=SEEDS)
def test_draw_and_its_log_q_have_plain_values_and_total_gradients(shape, seed):
    loc, log_scale = parameters(shape, seed)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=loc.dtype)
    q, _ = pair(loc, log_scale)
    torch.manual_seed(seed)
    theta = q.rsample()
    ours = q.log_prob(theta) * 1.7 + (weight * theta.sin()).sum()
    epsilon = ((theta - loc) / log_scale.exp()).detach()
    plain_theta = loc + log_scale.exp() * epsilon  # log_prob depends on loc through theta too
    log_q = plain(loc, log_scale).log_prob(plain_theta)
    theirs = log_q * 1.7 + (weight * plain_theta.sin()).sum()
    inputs = (loc, log_scale)
    same(value_and_gradients(ours, inputs), value_and_gradients(theirs, inputs))
    same(value_and_gradients(q.log_prob(theta), inputs), value_and_gradients(log_q, inputs))


def test_the_draws_own_log_q_does_not_move_with_loc():
    loc, log_scale = parameters((3, 4), 1)
    q, _ = pair(loc, log_scale)
    by_loc, by_scale = torch.autograd.grad(q.log_prob(q.rsample()), (loc, log_scale))
    assert torch.equal(by_loc, torch.zeros_like(loc))
    assert torch.equal(by_scale, -torch.ones_like(loc))


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, seed=SEEDS)
def test_posterior_log_prob_of_another_tensor(shape, seed):
    loc, log_scale = parameters(shape, seed)
    value = leaf(parameters(shape, seed + 1)[0])
    (q, _), inputs = pair(loc, log_scale), (value, loc, log_scale)
    q.rsample()  # the terms of this draw are not those of `value`
    same(
        value_and_gradients(q.log_prob(value), inputs),
        value_and_gradients(plain(loc, log_scale).log_prob(value), inputs),
    )


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, seed=SEEDS, m=LOCATIONS, log_s=LOG_SCALES)
def test_prior_log_prob(shape, seed, m, log_s):
    theta = leaf(parameters(shape, seed)[0])
    m, log_s = scalar(m), scalar(log_s)
    inputs = (theta, m, log_s)
    same(
        value_and_gradients(2.5 * WeightPrior(m, log_s, shape).log_prob(theta), inputs),
        value_and_gradients(2.5 * plain(m, log_s, shape).log_prob(theta), inputs),
    )


@pytest.mark.parametrize("shape", [(7,), (2, 3)])
def test_fixed_prior_has_a_gradient_for_theta_alone(shape):
    theta = leaf(parameters(shape, 0)[0])
    m, log_s = scalar(0.1).detach(), scalar(-1.0).detach()
    WeightPrior(m, log_s, shape).log_prob(theta).backward()
    torch.testing.assert_close(theta.grad, -(theta - m).sign().detach() * math.e, **EXACT)
    assert m.grad is None
    assert log_s.grad is None


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, seed=SEEDS, m=LOCATIONS, log_s=LOG_SCALES)
def test_closed_form_kl(shape, seed, m, log_s):
    loc, log_scale = parameters(shape, seed)
    m, log_s = scalar(m), scalar(log_s)
    inputs = (loc, log_scale, m, log_s)
    ours = kl_divergence(WeightPosterior(loc, log_scale), WeightPrior(m, log_s, shape))
    theirs = kl_divergence(plain(loc, log_scale), plain(m, log_s, shape))
    same(value_and_gradients(ours * 3, inputs), value_and_gradients(theirs * 3, inputs))
    assert ours >= -1e-9


def test_kl_of_a_distribution_with_itself_is_zero():
    m, log_s = scalar(0.3), scalar(-0.7)
    loc, log_scale = leaf(m.expand(4, 2)), leaf(log_s.expand(4, 2))
    kl = kl_divergence(WeightPosterior(loc, log_scale), WeightPrior(m, log_s, (4, 2)))
    gradients = torch.autograd.grad(kl, (loc, log_scale, m, log_s))
    for value in (kl, *gradients):
        torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)


def test_closed_form_kl_is_the_mean_of_sampled_log_ratios():
    loc, log_scale = parameters((2, 3), 5)
    p = WeightPrior(scalar(0.2), scalar(-0.4), (2, 3))
    torch.manual_seed(0)
    ratios = []
    with torch.no_grad():
        for _ in range(4000):
            q = WeightPosterior(loc, log_scale)
            theta = q.rsample()
            ratios.append(q.log_prob(theta) - p.log_prob(theta))
        ratios = torch.stack(ratios)
        kl = kl_divergence(WeightPosterior(loc, log_scale), p)
    assert (ratios.mean() - kl).abs() < 4 * ratios.std() / len(ratios) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_posterior_draws_are_laplace(dtype):
    torch.manual_seed(3)
    size = 20_000
    theta = WeightPosterior(
        torch.full((size,), 0.5, dtype=dtype), torch.full((size,), -0.8, dtype=dtype)
    ).rsample()
    draws = theta.double().numpy()
    assert kstest(draws, laplace(0.5, math.exp(-0.8)).cdf).pvalue > 0.01
    assert abs(draws.std() - math.sqrt(2) * math.exp(-0.8)) < 0.02


def test_prior_draws_are_laplace():
    torch.manual_seed(4)
    prior = WeightPrior(torch.tensor(-1.0), torch.tensor(0.3), (10, 20))
    draws = prior.rsample(torch.Size([100]))
    assert draws.shape == (100, 10, 20)
    assert kstest(draws.flatten().numpy(), laplace(-1, math.exp(0.3)).cdf).pvalue > 0.01


def test_draws_are_finite_and_of_the_event_shape():
    loc = torch.zeros(3, 5)
    q = WeightPosterior(loc, loc)
    assert q.event_shape == (3, 5)
    assert q.batch_shape == ()
    assert q.rsample().shape == (3, 5)
    assert q.log_prob(q.rsample()).shape == ()
    with pytest.raises(ValueError, match="one tensor at a time"):
        q.rsample(torch.Size([2]))


def test_random_bits_of_zero_give_a_finite_draw(monkeypatch):
    class Zeros:
        def __init__(self, seed):
            pass

        def random_raw(self, words):
            return np.zeros(words, np.uint64)

    monkeypatch.setattr(random_streams.np.random, "SFC64", Zeros)
    q = WeightPosterior(torch.zeros(3), torch.zeros(3))
    theta = q.rsample()
    assert torch.isfinite(theta).all()
    assert torch.isfinite(q.log_prob(theta))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("closed_form", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    "penalty", [None, Norm(1, False), Norm(2, False), Norm(1, True), Norm(2, True)]
)
def test_terms_evaluated_along_with_a_draw(monkeypatch, dtype, rtol, closed_form, learned, penalty):
    """Each term and each of its gradients, block by block, against torch's own Laplace."""
    # of 20 weights: two or three whole blocks and a part
    monkeypatch.setattr(laplace_draw, "DRAW_BLOCK", 7)
    monkeypatch.setattr(laplace_draw, "GRADIENT_BLOCK", 6)
    loc, log_scale = (leaf(v.to(dtype)) for v in parameters((4, 5), 0))
    m, log_s = (scalar(v).detach().to(dtype).requires_grad_(learned) for v in (0.1, -0.5))
    torch.manual_seed(1)
    q, prior = fused(
        WeightPosterior(loc, log_scale),
        WeightPrior(m, log_s, (4, 5)),
        closed_form=closed_form,
        penalty=penalty,
    )
    theta = q.rsample()
    epsilon = ((theta - loc) / log_scale.exp()).detach()
    p, plain_q = plain(m, log_s, (4, 5)), plain(loc, log_scale)
    plain_theta = loc + log_scale.exp() * epsilon
    pairs = [(theta.sin().sum(), plain_theta.sin().sum())]
    pairs.append((q.log_prob(theta), plain_q.log_prob(plain_theta)))
    if closed_form:
        pairs.append((kl_divergence(q, prior), kl_divergence(plain_q, p)))
        assert pairs[-1][0] is q.drawn.kl
    else:
        pairs.append((prior.log_prob(theta), p.log_prob(plain_theta)))
        assert pairs[-1][0] is q.drawn.log_p
    if penalty is not None:
        values = [loc, log_scale.exp()][: 1 + penalty.on_scale]
        pairs.append((q.norm(penalty), sum(v.abs().pow(penalty.power).sum() for v in values)))
    inputs = (loc, log_scale, *((m, log_s) if learned else ()))
    pairs.append(
        tuple(sum(k * side for k, side in enumerate(s, 1)) for s in zip(*pairs, strict=True))
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)
        found, expected = (
            torch.autograd.grad(
                value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for value in (ours, theirs)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * (1 + b.abs().max().item()))


def test_another_prior_is_not_answered_from_the_draw():
    loc, log_scale = parameters((3, 4), 2)
    m, other = scalar(0.1), scalar(0.7)
    for closed_form in (False, True):
        q, _ = fused(
            WeightPosterior(loc, log_scale), WeightPrior(m, m, (3, 4)), closed_form=closed_form
        )
        theta = q.rsample()
        prior = WeightPrior(other, m, (3, 4))
        expected = plain(other, m, (3, 4))
        torch.testing.assert_close(prior.log_prob(theta), expected.log_prob(theta), **EXACT)
        kl = kl_divergence(plain(loc, log_scale), expected)
        torch.testing.assert_close(kl_divergence(q, prior), kl, **EXACT)
