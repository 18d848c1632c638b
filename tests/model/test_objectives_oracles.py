"""Module A's objectives against numerical integration, enumeration and sums by hand."""

import copy
import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch import nn
from torch.distributions import kl_divergence

from pmmo.model.build import build_system
from pmmo.model.objectives import KL_TERMS, closed_form_kl, log_likelihood
from pmmo.model.systems import Batch, Sizes
from pmmo.model.variational import BayesianFusion
from pmmo.params import load_params
from pmmo.training.loop import batches

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
T, I, H, G, N = 3, 4, 2, 3, 12
SMALL = {"width": H, "maxout_units": 5, "epochs": 5, "dropout": 0.0}


def movies(rows=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text, image = (torch.randn(rows, n, generator=generator).double() for n in (T, I))
    return Batch(text, image, (torch.rand(rows, G, generator=generator) < 0.4).double())


def module_a(prior="learned", **changes):
    torch.manual_seed(0)
    sizes = {"text": T, "image": I, "hidden": H} | changes.pop("sizes", {})
    values = {"guide_scale": 0.3, "prior_loc": 0.1, "prior_scale": 0.5} | changes
    gate_input, start = values.pop("gate_input", "outputs"), "fan_in"
    fusion = BayesianFusion(
        **sizes, gate_input=gate_input, guide_start=start, prior=prior, **values
    ).double()
    return fusion, nn.Linear(sizes["hidden"], G).double()


def many(draws, fusion, batch):
    """The same fusion and movies `draws` times, as cycles that train together: a draw each."""
    fusion = copy.deepcopy(fusion)
    for parameter in fusion.parameters():
        parameter.data = parameter.data.expand(draws, *parameter.shape).clone()
    fusion.guide.cycles = torch.Size([draws])
    return fusion, Batch(*(x.expand(draws, *x.shape) for x in batch))


def z_scores(draws, expected):
    """Of the means over the draws (N, ...)."""
    return (draws.mean(0) - expected) / (draws.std(0) / len(draws) ** 0.5)


def system(name, **changes):
    torch.manual_seed(0)
    return build_system(replace(PARAMS.rows[name], **(SMALL | changes)), Sizes(T, I, G, N)).double()


def loss_of_a(built, batch, epoch, seed=3):
    torch.manual_seed(seed)
    return built.losses(batch, epoch)


def guide_gradients(built):
    """Gradients with respect to the posterior's parameters."""
    return {name: p.grad.clone() for name, p in built.fusion.guide.named_parameters()}


# --- the two KL terms ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loc", "b", "m", "s"),
    [(0.3, 0.2, 0.1, 0.5), (-1.0, 0.7, 0.1, 0.01), (0.1, 0.01, 0.1, 0.01), (0.1, 2.0, -0.4, 0.3)],
)
def test_the_closed_form_kl_is_the_integral_of_q_log_q_over_p(loc, b, m, s):
    fusion, readout = module_a(prior_loc=m, prior_scale=s)
    for name, mean in fusion.guide.mean().items():
        mean.data.fill_(loc)
        fusion.guide.distribution(name).log_scale.data.fill_(math.log(b))

    def integrand(theta):
        log_q = -abs(theta - loc) / b - math.log(2 * b)
        return math.exp(log_q) * (log_q + abs(theta - m) / s + math.log(2 * s))

    corners = sorted({loc, m})
    edges = [corners[0] - 60 * b, *corners, corners[-1] + 60 * b]
    integral = sum(quad(integrand, *piece, epsabs=1e-11, limit=200)[0] for piece in pairwise(edges))
    traces = fusion.traces(*movies(), readout=readout, movies=N)
    per_weight = closed_form_kl(*traces).sum().item() / fusion.random_weights
    assert per_weight == pytest.approx(integral, rel=1e-6, abs=1e-9)


def test_v2s_kl_is_the_mean_of_v1s_over_many_draws():
    fusion, readout = module_a()
    fusion, batch = many(400, fusion, movies())
    torch.manual_seed(1)
    with torch.no_grad():
        traces = fusion.traces(*batch, readout=readout, movies=N)
        v1, v2 = (KL_TERMS[elbo](*traces) for elbo in ("v1", "v2"))
    torch.testing.assert_close(v2, v2[:1].expand(400), rtol=1e-12, atol=0)
    assert z_scores(v1, v2[0]).abs() < 4
    assert v1.std() > 1  # nats: v1 needs those draws


@pytest.mark.parametrize("kind", ["loc", "log_scale"])
def test_gradients_of_both_kl_terms_agree_in_expectation_and_v2s_does_not_vary(kind):
    (fusion, readout), found = module_a(), {"v1": [], "v2": []}
    fusion, batch = many(150, fusion, movies())
    parameters = [p for n, p in fusion.guide.named_parameters() if n.split(".")[0] == kind]
    torch.manual_seed(2)
    for _ in range(2):
        traces = fusion.traces(*batch, readout=readout, movies=N)
        for elbo, gradients in found.items():
            value = KL_TERMS[elbo](*traces).sum()
            grads = torch.autograd.grad(value, parameters, retain_graph=True)
            gradients.append(torch.cat([g.flatten(1) for g in grads], dim=1))  # (draws, weights)
    first, second = found["v2"]
    assert torch.equal(first, second)
    torch.testing.assert_close(first, first[:1].expand_as(first), rtol=1e-12, atol=1e-14)
    z = z_scores(torch.cat(found["v1"]), first[0])
    assert z.abs().max() < 4.5
    assert 0.5 < z.square().mean() < 1.6  # neither biased nor with the wrong error


# --- annealing, penalties, minibatches -----------------------------------------------------------


def test_annealing_weighs_the_kl_term_by_lambda_at_first_and_by_one_at_last():
    built, batch = system("pmmo-kl", kl_weight="exact"), movies()
    terms = [loss_of_a(built, batch, epoch) for epoch in range(5)]
    kl = terms[0]["kl"]
    for epoch, factor in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        expected = terms[-1]["loss_a"] + (factor - 1) * kl
        torch.testing.assert_close(terms[epoch]["loss_a"], expected, rtol=1e-9, atol=1e-9)
    v1 = system("pmmo-v1", kl_weight="exact")  # the same weights and the same draw
    for epoch in range(5):
        same = loss_of_a(v1, batch, epoch)["loss_a"]
        torch.testing.assert_close(same, terms[-1]["loss_a"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_penalty_adds_its_own_gradient_to_the_systems_loss(kind, reduction):
    changes = {"elbo": "v2", "penalty_weight": 0.7, "penalty_reduction": reduction}
    found = {}
    for penalty in ("none", kind):
        built = system("pmmo-v2", penalty=penalty, **changes)
        loss_of_a(built, movies(), 0)["loss"].sum().backward()
        found[penalty] = guide_gradients(built)
    count = built.fusion.random_weights if reduction == "mean" else 1
    for name, parameter in built.fusion.guide.named_parameters():
        value = parameter.detach()
        if name.split(".")[0] == "loc":
            expected = value.sign() if kind == "l1" else 2 * value
        else:  # of b = exp(log b), or of b squared, by log b
            expected = value.exp() if kind == "l1" else 2 * (2 * value).exp()
        added = found[kind][name] - found["none"][name]
        torch.testing.assert_close(added, 0.7 * expected / count, rtol=1e-6, atol=1e-10)
        assert added.abs().min() > 0


def test_the_mean_over_equal_batches_is_the_loss_of_the_whole_training_set():
    whole = movies()
    for name in ("pmmo-kl-l2", "pmmo-v2", "pmmo-literal"):
        built = system(name, batch_norm=False)
        full = loss_of_a(built, whole, 2)
        parts = [Batch(*(x[i : i + 3] for x in whole)) for i in range(0, N, 3)]
        for term in ("loss", "loss_a", "log_likelihood", "loss_c"):
            mean = torch.stack([loss_of_a(built, part, 2)[term] for part in parts]).mean(0)
            torch.testing.assert_close(mean, full[term], rtol=1e-9, atol=1e-9)


def test_unequal_batches_are_unbiased_over_all_divisions_of_the_movies():
    whole, sizes = movies(5), [len(part) for part in batches(5, 3, torch.Generator())]
    assert sorted(sizes) == [2, 3]
    built = system("pmmo-v2", batch_norm=False)
    built.sizes = Sizes(T, I, G, 5)
    full = loss_of_a(built, whole, 0)["loss_a"]
    found = []
    for first in combinations(range(5), sizes[0]):
        for rows in (list(first), [row for row in range(5) if row not in first]):
            part = Batch(*(x[rows] for x in whole))
            found.append(loss_of_a(built, part, 0)["loss_a"].detach())
    torch.testing.assert_close(torch.stack(found).mean(0), full, rtol=1e-9, atol=1e-9)


def test_the_likelihood_is_the_bernoulli_sum_by_hand():
    (fusion, readout), batch = module_a(), movies(4)
    guide, model = fusion.traces(*batch, readout=readout, movies=N)
    w = {n: v["value"].detach().numpy() for n, v in guide.nodes.items() if v["type"] == "sample"}
    w = {n: v.reshape(v.shape[-2:] if n.endswith("weight") else -1) for n, v in w.items()}
    text, image, genres = (x.numpy() for x in batch)
    total = 0.0
    for x_t, x_i, y in zip(text, image, genres, strict=True):
        v_t = np.tanh(w["text.weight"] @ x_t + w["text.bias"])
        v_i = np.tanh(w["image.weight"] @ x_i + w["image.bias"])
        gate = 1 / (1 + np.exp(-(w["gate.weight"] @ np.append(v_t, v_i) + w["gate.bias"])))
        z = gate * v_i + (1 - gate) * v_t
        p = 1 / (1 + np.exp(-(readout.weight.detach().numpy() @ z + readout.bias.detach().numpy())))
        total += (y * np.log(p) + (1 - y) * np.log(1 - p)).sum()
    assert log_likelihood(model).sum().item() == pytest.approx(total * N / 4, rel=1e-9)


# --- one weight: everything by numerical integration ---------------------------------------------

X = np.array([-2.0, -1.6, -1.1, -0.7, -0.4, 0.2, 0.5, 0.9, 1.3, 1.9])
Y = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
PRIOR_LOC, PRIOR_SCALE = 0.1, 0.8
GRID = np.linspace(-15, 15, 60_001)
STEP = GRID[1] - GRID[0]
LOGITS = 3 * np.tanh(GRID[:, None] * X)
LOG_LIKELIHOOD = (Y * LOGITS - np.logaddexp(0, LOGITS)).sum(1)
LOG_JOINT = LOG_LIKELIHOOD - np.abs(GRID - PRIOR_LOC) / PRIOR_SCALE - np.log(2 * PRIOR_SCALE)
LOG_EVIDENCE = np.log(np.exp(LOG_JOINT).sum() * STEP)
PINNED_LOC = {"gate.bias": -40.0}  # the gate is shut: z = tanh(theta x)
PINNED_LOG_SCALE = -25.0


def log_q(loc, b):
    return -np.abs(GRID - loc) / b - np.log(2 * b)


def elbo(loc, b):
    q = log_q(loc, b)
    return (np.exp(q) * (LOG_JOINT - q)).sum() * STEP


class OneWeight:
    """p(y | x) = sigmoid(3 tanh(theta x)), theta ~ Laplace, inside module A: the rest is pinned."""

    def __init__(self, loc=0.0, b=0.5, draws=1):
        fusion, _ = module_a(
            "fixed",
            sizes={"text": 1, "image": 1, "hidden": 1},
            gate_input="inputs",
            prior_loc=PRIOR_LOC,
            prior_scale=PRIOR_SCALE,
        )
        image = torch.zeros(len(X), 1).double()
        x, y = (torch.from_numpy(v)[:, None] for v in (X, Y))
        self.fusion, self.batch = many(draws, fusion, Batch(x, image, y))
        self.pin()
        self.loc.data.fill_(loc)
        self.log_scale.data.fill_(math.log(b))

    @property
    def loc(self):
        return self.fusion.guide.mean()["text.weight"]

    @property
    def log_scale(self):
        return self.fusion.guide.distribution("text.weight").log_scale

    def others(self):
        return [n for n in self.fusion.guide.mean() if n != "text.weight"]

    def pin(self):
        mean = self.fusion.guide.mean()
        for name in self.others():
            mean[name].data.fill_(PINNED_LOC.get(name, 0.0))
            self.fusion.guide.distribution(name).log_scale.data.fill_(PINNED_LOG_SCALE)

    def negative_elbo(self, kind):
        traces = self.fusion.traces(*self.batch, readout=lambda z: 3 * z, movies=len(X))
        return KL_TERMS[kind](*traces) - log_likelihood(traces[1])  # (draws,)

    def pinned_kl(self):
        guide, prior = self.fusion.guide, self.fusion.prior
        pairs = ((guide.distribution(n), prior.distribution(n)) for n in self.others())
        return sum(kl_divergence(q, p) for q, p in pairs)  # (draws,)


def test_the_elbo_is_the_evidence_minus_the_divergence_from_the_posterior():
    """Eq. 3 to 5, and the sign that Eq. 5 misprints: ELBO = log p(y) - KL(q || p(theta | y))."""
    problem = OneWeight(0.6, 0.35, draws=100_000)
    torch.manual_seed(0)
    with torch.no_grad():
        found = problem.pinned_kl() - problem.negative_elbo("v2")
    q = log_q(0.6, 0.35)
    divergence = (np.exp(q) * (q - (LOG_JOINT - LOG_EVIDENCE))).sum() * STEP
    assert divergence > 0.05
    assert z_scores(found, LOG_EVIDENCE - divergence).abs() < 4


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_gradients_are_those_of_the_integrated_elbo(kind):
    problem, h = OneWeight(0.6, 0.35, draws=100_000), 1e-3
    expected = [
        -(elbo(0.6 + h, 0.35) - elbo(0.6 - h, 0.35)) / (2 * h),
        -(elbo(0.6, 0.35 * math.exp(h)) - elbo(0.6, 0.35 * math.exp(-h))) / (2 * h),
    ]
    torch.manual_seed(0)
    problem.negative_elbo(kind).sum().backward()
    found = torch.stack([problem.loc.grad, problem.log_scale.grad], dim=-1)  # (draws, 1, 1, 2)
    assert z_scores(found, torch.tensor(expected)).abs().max() < 4


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_the_fitted_posterior_is_the_best_laplace_by_numerical_integration(kind):
    """16 fits, each with its own draws; the mean over them and over the last steps."""
    best = minimize(lambda at: -elbo(at[0], math.exp(at[1])), (0.0, 0.0), method="Nelder-Mead")
    loc, b = best.x[0], math.exp(best.x[1])
    problem, tail = OneWeight(draws=16), []
    optimiser = torch.optim.Adam(problem.fusion.guide.parameters(), lr=0.04)
    torch.manual_seed(0)
    for step in range(300):
        optimiser.zero_grad()
        problem.negative_elbo(kind).sum().backward()
        optimiser.step()
        problem.pin()
        if step >= 200:
            tail.append((problem.loc.mean().item(), problem.log_scale.mean().item()))
    fitted_loc, fitted_b = np.mean(tail, 0)[0], math.exp(np.mean(tail, 0)[1])
    assert fitted_loc == pytest.approx(loc, abs=0.03)
    assert fitted_b == pytest.approx(b, rel=0.08)
    assert -best.fun - elbo(fitted_loc, fitted_b) < 0.005  # nats

    posterior = np.exp(LOG_JOINT - LOG_EVIDENCE)
    mean = (posterior * GRID).sum() * STEP
    sd = ((posterior * (GRID - mean) ** 2).sum() * STEP) ** 0.5
    assert abs(fitted_loc - mean) < 0.25 * sd
    assert math.sqrt(2) * fitted_b == pytest.approx(sd, rel=0.3)
    assert 0 < LOG_EVIDENCE - elbo(fitted_loc, fitted_b) < 0.15  # nats from the true posterior
