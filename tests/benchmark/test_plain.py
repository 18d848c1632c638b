"""The fast path of PM+MO against the step written plainly in Pyro: terms, gradients, trajectory.

Both get the same start and the same draws: what the fast guide drew is handed to the plain one as
noise, so that theta = loc + b eps keeps its gradient there.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger

from pmmo.benchmark.plain import PlainPmmo
from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes
from pmmo.params import load_params

ROW = load_params(Path(__file__).parents[2] / "params.yaml").rows["pmmo-kl-l2"]
N, B, T, I, H, G = 40, 16, 5, 7, 6, 3
SMALL = {"width": H, "maxout_units": 8, "epochs": 4, "batch_size": B, "guide_scale": 0.05}
ELBOS, PENALTIES = ("v1", "v2", "kl"), ("none", "l1", "l2")
EVERY = [{"elbo": elbo, "penalty": kind} for elbo, kind in product(ELBOS, PENALTIES)]
OTHERS = [
    {"kl_weight": "exact", "guide_start": "prior", "prior": "fixed"},
    {"elbo": "v2", "prior_scale_is": "variance", "gate_input": "inputs"},
    {"readout": "classifier", "penalty_on": "loc", "penalty_reduction": "sum"},
    {"classifier_gradient": "detached", "bce": "mean", "maxout_pieces": 3, "maxout_layers": 1},
    {"classifier_order": "released"},
    {"batch_norm": False, "kl_weight": 0.3, "penalty": "l1", "dropout": 0.0},
]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
TERMS = ("log_likelihood", "kl", "penalty", "loss_c", "loss_a", "loss")
RENAMED = (
    ("prior_", "fusion.prior."),
    ("loc.", "fusion.guide.loc."),
    ("log_scale.", "fusion.guide.log_scale."),
)


def movies(seed, dtype, rows=B):
    generator = torch.Generator().manual_seed(seed)
    text, image = (torch.randn(rows, n, generator=generator) for n in (T, I))
    genres = (torch.rand(rows, G, generator=generator) < 0.4).float()
    return Batch(*(x.to(dtype) for x in (text, image, genres)))


def name_in_fast(name):
    """The fast system's name of a parameter or buffer of the plain one."""
    for plain, fast in RENAMED:
        if name.startswith(plain):
            return name.replace(plain, fast, 1)
    return name


class SameNoise(Messenger):
    """Gives the plain guide's sites the values loc + b eps."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, message):
        if message["name"] in self.noise and message["value"] is None:
            q = message["fn"].base_dist
            message["value"] = q.loc + q.scale * self.noise[message["name"]]
            message["done"] = True


def pair(changes, dtype=torch.float64, seed=0):
    """The fast and the plain system with the same start, and a list that collects the draws."""
    settings, sizes = replace(ROW, **SMALL | changes), Sizes(T, I, G, N)
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        fast, plain = build_system(settings, sizes), PlainPmmo(settings, sizes)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():  # scales that differ, and a guide that is not the prior
        for p in fast.fusion.guide.parameters():
            p += 0.1 * torch.randn(p.shape).to(dtype)
    state = fast.state_dict()
    plain.load_state_dict(
        {k: state[name_in_fast(k)].reshape(v.shape) for k, v in plain.state_dict().items()}
    )
    draws = []
    guide = fast.fusion.guide
    guide.register_forward_hook(lambda *call: draws.append(call[-1]))
    for system in (fast, plain):  # the same dropout masks
        system.classifier.register_forward_pre_hook(lambda *_: torch.manual_seed(seed) and None)
    return fast, plain, draws


def noise(fast, theta):
    """eps of theta = loc + b eps, by the plain guide's site names."""
    found = {}
    for name, value in theta.items():
        site = name.replace(".", "_")
        loc, log_scale = fast.fusion.guide.loc[site], fast.fusion.guide.log_scale[site]
        found[site] = ((value - loc) / log_scale.exp()).detach()
    return found


def assert_same(ours, theirs, tolerance, what, least=0.0):
    """The difference relative to the norm of the whole tensor, or to `least` where that is less."""
    ours, theirs = (torch.as_tensor(x).detach().double() for x in (ours, theirs))
    size = max(theirs.norm().item(), least)
    difference = (ours.reshape(theirs.shape) - theirs).norm().item()
    assert difference <= tolerance * size, f"{what}: {difference} of {size}"


def gradients(system, term, names):
    """The gradients that the optimisers get."""
    for optimiser in system.optimisers:
        optimiser.zero_grad()
    term.backward(retain_graph=True)
    parameters = dict(system.named_parameters())
    found = {p: torch.zeros_like(p) if p.grad is None else p.grad for p in parameters.values()}
    return [found[parameters[name]].clone() for name in names]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
@pytest.mark.parametrize("changes", EVERY + OTHERS, ids=lambda c: "-".join(map(str, c.values())))
def test_every_term_and_every_gradient_is_the_plain_steps(changes, dtype):
    fast, plain, draws = pair(changes, dtype)
    batch, epoch = movies(1, dtype), 1
    ours = fast.losses(batch, epoch)
    with SameNoise(noise(fast, draws[0])):
        theirs = plain.losses(batch, epoch)
    assert ours["kl_factor"] == pytest.approx(theirs["kl_factor"], rel=1e-14)
    names = [name for name, p in plain.named_parameters() if p.requires_grad]
    assert len(names) == sum(p.requires_grad for p in fast.parameters())
    for term in TERMS:
        assert_same(ours[term], theirs[term], TOLERANCE[dtype], term)
        if not torch.is_tensor(ours[term]):  # no penalty
            continue
        found = gradients(fast, ours[term], [name_in_fast(name) for name in names])
        expected = gradients(plain, theirs[term], names)
        least = 1e-3 * max(e.norm().item() for e in expected)  # signs that cancel: zero but for eps
        for name, g, e in zip(names, found, expected, strict=True):
            assert_same(g, e, TOLERANCE[dtype], f"gradient of {term} at {name}", least)


@pytest.mark.parametrize("name", ["loc.text_weight", "log_scale.gate_weight", "prior_loc.image"])
def test_a_wrong_gradient_would_be_seen(name):
    fast, plain, draws = pair({})
    batch = movies(1, torch.float64)
    ours = fast.losses(batch, 0)["loss"]
    with SameNoise(noise(fast, draws[0])):
        theirs = plain.losses(batch, 1)["loss"]  # another annealing factor
    (g,), (e,) = gradients(fast, ours, [name_in_fast(name)]), gradients(plain, theirs, [name])
    with pytest.raises(AssertionError):
        assert_same(g, e, 1e-5, name)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-8)], ids=str
)
@pytest.mark.parametrize("changes", EVERY, ids=lambda c: "-".join(c.values()))
def test_training_follows_the_plain_trajectory(changes, dtype, tolerance):
    fast, plain, draws = pair(changes, dtype)
    start = {name: value.clone() for name, value in plain.named_parameters()}
    for step in range(12):
        batch, epoch = movies(step, dtype), step // 3
        before = {
            kind: {k: v.clone() for k, v in getattr(fast.fusion.guide, kind).items()}
            for kind in ("loc", "log_scale")
        }
        ours = fast.train_step(batch, epoch)
        eps = {}
        for name, value in draws[-1].items():
            site = name.replace(".", "_")
            eps[site] = (value.detach() - before["loc"][site]) / before["log_scale"][site].exp()
        with SameNoise({site: value.detach() for site, value in eps.items()}):
            theirs = plain.train_step(batch, epoch)
        for term in TERMS:
            assert_same(ours[term], theirs[term], tolerance, f"{term} in step {step + 1}")
    parameters = dict(fast.named_parameters())
    for name, value in plain.named_parameters():
        assert_same(parameters[name_in_fast(name)], value, tolerance, name)
        if value.requires_grad:
            assert not torch.equal(value, start[name]), f"{name} was not trained"


def test_the_plain_steps_v1_is_log_joint_minus_log_guide():
    """The tutorial's own line: elbo = model_trace.log_prob_sum() - guide_trace.log_prob_sum()."""
    settings = replace(ROW, **SMALL, elbo="v1", penalty="none", kl_weight="exact")
    torch.manual_seed(0)
    plain = PlainPmmo(settings, Sizes(T, I, G, N)).double()
    batch = movies(3, torch.float64)
    torch.manual_seed(5)
    ours = plain.losses(batch, 0)["loss_a"] * N
    torch.manual_seed(5)
    guide_trace = poutine.trace(plain.guide).get_trace(batch)
    model_trace = poutine.trace(poutine.replay(plain.model, trace=guide_trace)).get_trace(batch)
    elbo = model_trace.log_prob_sum() - guide_trace.log_prob_sum()
    torch.testing.assert_close(ours, -elbo, rtol=1e-12, atol=1e-9)


def test_the_plain_step_limits_norms_and_can_go_without():
    for limit in (0.1, "none"):
        settings = replace(ROW, **SMALL, max_norm=limit)
        torch.manual_seed(0)
        plain = PlainPmmo(settings, Sizes(T, I, G, N))
        plain.train_step(movies(0, torch.float32), 0)
        largest = plain.classifier[-1].weight.norm(dim=1).max()
        assert (largest <= 0.1 + 1e-6) == (limit == 0.1)
