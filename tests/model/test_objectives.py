"""Module A's objectives against Pyro's own traces and ELBO, hand sums and a known posterior."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import Laplace, kl_divergence

from pmmo.kernels.clipped_adam import ClippedAdam
from pmmo.kernels.laplace_weights import WeightPosterior, WeightPrior
from pmmo.model.build import build_system
from pmmo.model.networks import fuse
from pmmo.model.objectives import (
    closed_form_kl,
    kl_factor,
    kl_temperature,
    log_likelihood,
    penalty,
    sampled_kl,
)
from pmmo.model.systems import Batch, Sizes
from pmmo.model.variational import BayesianFusion, LaplacePosterior
from pmmo.params import load_params
from tests.model.test_objectives_oracles import many

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
N, B, T, I, H, G = 40, 8, 5, 7, 4, 3


def movies(rows=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text, image = (torch.randn(rows, n, generator=generator).double() for n in (T, I))
    return text, image, (torch.rand(rows, G, generator=generator) < 0.4).double()


@pytest.fixture
def a():
    """Module A in float64 and its readout."""
    torch.manual_seed(0)
    fusion = BayesianFusion(
        T,
        I,
        H,
        gate_input="outputs",
        guide_start="fan_in",
        guide_scale=0.3,
        prior="learned",
        prior_loc=0.1,
        prior_scale=0.5,
    ).double()
    return fusion, nn.Linear(H, G).double()


def plain(fusion, readout, movies=N):
    """The same guide and model, written with Pyro's own Laplace."""

    def guide(text, image, genres):
        return {
            name: pyro.sample(
                name, dist.Laplace(mean, fusion.guide.distribution(name).log_scale.exp()).to_event()
            )
            for name, mean in fusion.guide.mean().items()
        }

    def model(text, image, genres):
        weights = {}
        for name, shape in fusion.prior.shapes.items():
            p = fusion.prior.distribution(name)
            prior = dist.Laplace(p.loc, p.log_scale.exp()).expand(shape).to_event()
            weights[name] = pyro.sample(name, prior)
        z = fuse(weights, text, image, "outputs").z
        with pyro.plate("movies", movies, subsample=torch.arange(len(text))):
            likelihood = dist.Bernoulli(logits=readout(z)).to_event(1)
            pyro.sample("genres", likelihood, obs=genres)

    return guide, model


def test_v1_is_pyros_log_p_minus_log_q_of_the_draw(a):
    fusion, readout = a
    batch = movies()
    traces = fusion.traces(*batch, readout=readout, movies=N)
    elbo = log_likelihood(traces[1]) - sampled_kl(*traces)
    guide, model = plain(fusion, readout)
    draw = {k: v["value"] for k, v in traces[0].nodes.items() if v["type"] == "sample"}
    log_q = poutine.trace(poutine.condition(guide, data=draw)).get_trace(*batch).log_prob_sum()
    log_p = poutine.trace(poutine.condition(model, data=draw)).get_trace(*batch).log_prob_sum()
    torch.testing.assert_close(elbo, log_p - log_q, rtol=1e-10, atol=1e-9)
    parameters = [*fusion.parameters(), *readout.parameters()]
    ours = torch.autograd.grad(elbo, parameters, retain_graph=True)
    theirs = torch.autograd.grad(log_p - log_q, parameters)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_v2s_kl_is_the_closed_form(a):
    fusion, readout = a
    traces = fusion.traces(*movies(), readout=readout, movies=N)
    expected = 0
    for name, mean in fusion.guide.mean().items():
        q, p = fusion.guide.distribution(name), fusion.prior.distribution(name)
        prior = Laplace(p.loc.expand(mean.shape), p.log_scale.exp().expand(mean.shape))
        expected += kl_divergence(Laplace(mean, q.log_scale.exp()), prior).sum()
    torch.testing.assert_close(closed_form_kl(*traces), expected, rtol=1e-10, atol=1e-9)


def test_pyros_trace_elbo_of_our_model_and_guide_is_v1(a):
    fusion, readout = a
    batch = movies()
    torch.manual_seed(7)
    traces = fusion.traces(*batch, readout=readout, movies=N)
    ours = sampled_kl(*traces) - log_likelihood(traces[1])

    def model(*batch):
        return fusion.model(*batch, readout=readout, movies=N)

    torch.manual_seed(7)
    theirs = Trace_ELBO().differentiable_loss(model, lambda *_: fusion.guide(), *batch)
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-9)


def test_pyros_trace_elbo_of_the_plain_model_agrees_on_average(a):
    fusion, readout = a
    batch, draws = movies(), 150
    guide, model = plain(fusion, readout)
    torch.manual_seed(1)
    with torch.no_grad():
        theirs = torch.tensor([Trace_ELBO().loss(model, guide, *batch) for _ in range(draws)])
        ours = []
        for _ in range(draws):
            traces = fusion.traces(*batch, readout=readout, movies=N)
            ours.append(sampled_kl(*traces) - log_likelihood(traces[1]))
    ours = torch.stack(ours)
    error = ((ours.var() + theirs.var()) / draws).sqrt()
    assert (ours.mean() - theirs.mean()).abs() < 4 * error


def test_gradients_of_v1_and_v2_agree_in_expectation_and_v2_varies_less(a):
    fusion, readout = a
    fusion, batch = many(400, fusion, movies())
    parameters = [*fusion.guide.parameters(), *fusion.prior.parameters()]
    torch.manual_seed(2)
    traces = fusion.traces(*batch, readout=readout, movies=N)
    likelihood = log_likelihood(traces[1])

    def gradients(kl):  # (draws, parameters)
        grads = torch.autograd.grad((kl - likelihood).sum(), parameters, retain_graph=True)
        return torch.cat([g.reshape(400, -1) for g in grads], dim=1)

    v1, v2 = (gradients(kl(*traces)) for kl in (sampled_kl, closed_form_kl))
    difference = v1 - v2
    error = difference.std(0) / len(v1) ** 0.5
    assert ((difference.mean(0)).abs() < 5 * error + 1e-9).all()
    assert v2.var(0).sum() < v1.var(0).sum()


def test_minibatches_estimate_the_full_likelihood(a):
    fusion, readout = a

    def likelihood(*batch):
        weights = fusion.guide.mean()
        model = poutine.condition(fusion.model, data=weights)
        trace = poutine.trace(model).get_trace(*batch, readout=readout, movies=N)
        return log_likelihood(trace)

    whole = movies(N)
    parts = [likelihood(*(x[i : i + B] for x in whole)) for i in range(0, N, B)]
    torch.testing.assert_close(torch.stack(parts).mean(), likelihood(*whole), rtol=1e-12, atol=0)


def test_kl_factor():
    assert [kl_factor("kl", e, 5, 0.2) for e in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert kl_factor("kl", 0, 1, 0.2) == 1.0
    assert {kl_factor(elbo, e, 5, 0.2) for elbo in ("v1", "v2") for e in range(5)} == {1.0}


def test_kl_temperature():
    assert kl_temperature("exact", 40, 100) == 1.0
    assert kl_temperature("per_weight", 40, 100) == 0.4
    assert kl_temperature(3, 40, 100) == 3.0
    assert kl_temperature(0.0, 40, 100) == 0.0


@pytest.mark.parametrize(
    ("kind", "on", "total"),
    [
        ("l1", "loc", 6.0),
        ("l2", "loc", 14.0),
        ("l1", "loc_and_scale", 7.5),
        ("l2", "loc_and_scale", 14.75),
    ],
)
def test_penalties_by_hand(kind, on, total):
    start = {"text.weight": torch.tensor([[1.0, -2.0]]), "text.bias": torch.tensor([3.0])}
    posterior = LaplacePosterior(start, scale=0.5)
    trace = poutine.trace(posterior).get_trace()
    assert penalty(trace, kind, on, "sum").item() == pytest.approx(total)
    mean = penalty(trace, kind, on, "mean")
    assert mean.item() == pytest.approx(total / 3)
    mean.backward()
    by_loc = [1, -1] if kind == "l1" else [2, -4]
    by_log_scale = 0.5 if kind == "l1" else 2 * 0.5 * 0.5
    expected = torch.tensor([by_loc]) / 3
    torch.testing.assert_close(posterior.loc["text_weight"].grad, expected)
    grad = posterior.log_scale["text_weight"].grad
    if on == "loc":
        assert grad is None
    else:
        torch.testing.assert_close(grad, torch.full((1, 2), by_log_scale / 3))


def test_no_penalty():
    trace = poutine.trace(LaplacePosterior({"text.bias": torch.ones(2)}, 0.5)).get_trace()
    assert penalty(trace, "none", "loc", "sum") == 0


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_one_weight_posterior_is_the_elbos_optimum(kind):
    """y_i ~ Normal(theta, 1), theta ~ Laplace(0, 1/2): the optimum by integration on a grid.

    64 such weights are fitted side by side; the mean over them and over the last steps.
    """
    y = torch.tensor([0.9, 1.4, 0.4, 1.1, 0.7], dtype=torch.float64)

    def negative_elbo(loc, b):  # E_q of the squares is in closed form: var q = 2 b^2
        theta = np.linspace(-15, 15, 30_001)
        log_q = -np.abs(theta - loc) / b - np.log(2 * b)
        log_p = np.log(1.0) - np.abs(theta) / 0.5
        log_p -= ((y.numpy()[:, None] - theta) ** 2).sum(0) / 2
        return (np.exp(log_q) * (log_q - log_p)).sum() * (theta[1] - theta[0])

    grid = [(m, b) for m in np.linspace(0.4, 0.9, 26) for b in np.linspace(0.15, 0.5, 36)]
    best = min(grid, key=lambda point: negative_elbo(*point))
    torch.manual_seed(0)
    loc, log_scale = (nn.Parameter(torch.full((64,), v, dtype=torch.float64)) for v in (0.0, -2.0))
    prior = WeightPrior(torch.zeros(()).double(), torch.tensor(0.5).double().log(), (64,))
    optimiser, tail = ClippedAdam([loc, log_scale], lr=0.01), []
    for step in range(600):
        q = WeightPosterior(loc, log_scale)
        theta = q.rsample()
        kl = kl_divergence(q, prior) if kind == "v2" else q.log_prob(theta) - prior.log_prob(theta)
        loss = kl + (y[:, None] - theta).square().sum() / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step >= 500:
            tail.append((loc.mean().item(), log_scale.exp().mean().item()))
    assert np.mean(tail, axis=0) == pytest.approx(best, abs=0.05)


@pytest.mark.parametrize("name", ["pmmo-v1", "pmmo-v2", "pmmo-kl-l1", "pmmo-released"])
def test_pyros_parameter_store_stays_empty(name):
    pyro.clear_param_store()
    small = {"width": H, "maxout_units": 6, "epochs": 2, "batch_size": B}
    torch.manual_seed(0)
    system = build_system(replace(PARAMS.rows[name], **small), Sizes(T, I, G, N))
    batch = Batch(*(x.float() for x in movies()))
    for epoch in range(2):
        system.train_step(batch, epoch)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("name", ["pmmo-v1", "pmmo-v2", "pmmo-kl-l2", "pmmo-literal"])
def test_a_systems_loss_is_its_terms(name):
    small = {"width": H, "maxout_units": 6, "epochs": 3, "batch_size": B}
    torch.manual_seed(0)
    settings = replace(PARAMS.rows[name], **small)
    system = build_system(settings, Sizes(T, I, G, N))
    terms = system.losses(Batch(*(x.float() for x in movies())), 0)
    annealed = 0.2 if settings.elbo == "kl" else 1.0
    tempered = 1.0 if name == "pmmo-literal" else N / system.fusion.random_weights
    assert terms["kl_factor"] == pytest.approx(annealed * tempered)
    loss_a = terms["kl_factor"] * terms["kl"] - terms["log_likelihood"]
    loss_a = loss_a + terms["penalty"] * 1.0
    torch.testing.assert_close(terms["loss_a"], loss_a)
    torch.testing.assert_close(terms["loss"], terms["loss_a"] + terms["loss_c"])
