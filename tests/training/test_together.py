"""Cycles in one batched model, compiled passes and lower precision: against cycles on their own."""

import math
import shutil
import sys
import warnings
from dataclasses import replace
from itertools import product
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch._dynamo.exc import TorchRuntimeError

from pmmo.core.errors import PmmoError
from pmmo.kernels import laplace_blocks, laplace_draw
from pmmo.kernels.laplace_blocks import Norm
from pmmo.kernels.laplace_draw import Along, draw
from pmmo.kernels.laplace_weights import WeightPosterior, WeightPrior, fused
from pmmo.kernels.layers import BatchNorm, Dropout
from pmmo.kernels.random_streams import Streams
from pmmo.model.build import build_system
from pmmo.model.networks import apply_max_norm
from pmmo.model.systems import Batch, Sizes
from pmmo.training import cycles
from pmmo.training.cycles import cycles_together, run_cycles
from pmmo.training.device import prepare_process
from pmmo.training.evaluation import predict, predict_cycles
from pmmo.training.loop import train_cycle, train_cycles, train_epoch
from pmmo.training.stacking import build_together, stack
from tests.training.test_training import SPLITS, G, I, T, as_the_stage_runs, row, same_cycles

__all__ = ["as_the_stage_runs"]  # a fixture, for every test here
CPU = torch.device("cpu")
SIZES = Sizes(T, I, G, 40)
LOSSES = ("loss", "loss_a", "log_likelihood", "kl", "kl_factor", "penalty", "loss_c")

ELBOS = [
    {"elbo": elbo, "penalty": penalty, "prior": prior}
    for elbo, penalty, prior in product(
        ("v1", "v2", "kl"), ("none", "l1", "l2"), ("fixed", "learned")
    )
]
OTHERS = [
    {"readout": "classifier"},
    {"classifier_gradient": "detached"},
    {"batch_norm": False, "dropout": 0.0},
    {"batch_norm_eval": "running"},
    {"gate_input": "inputs", "kept_epoch": "last"},
    {"prediction": "samples", "posterior_samples": 3},
    {"penalty": "l2", "penalty_on": "loc", "penalty_reduction": "sum"},
    {"guide_start": "prior", "kl_weight": "exact", "max_norm": "none"},
]
CASES = [("pmmo", changes) for changes in ELBOS + OTHERS]
CASES += [("mmo", changes) for changes in ({}, OTHERS[0], OTHERS[2])]
CASES += [("gmu", changes) for changes in ({}, {"max_norm": 0.3}, OTHERS[2])]


def close(found, expected, tolerance=1e-5):
    """Two cycles up to rounding."""
    assert found.summary["cycle"] == expected.summary["cycle"]
    assert found.summary["seed"] == expected.summary["seed"]
    for ours, theirs in zip(found.curves, expected.curves, strict=True):
        assert ours.keys() == theirs.keys()
        for name in set(LOSSES) & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=1e-7)
    for name in ("state", "predictions"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("system", "changes"), CASES, ids=str)
def test_cycles_together_are_those_trained_apart(system, changes):
    settings = row(system, **changes)
    heard = []
    found = train_cycles(settings, SPLITS, [0, 2, 3], lambda *news: heard.append(news))
    for cycle in found:
        close(cycle, train_cycle(settings, SPLITS, cycle.summary["cycle"]))
    assert [news[:2] for news in heard] == [(c, epoch) for epoch in (1, 2) for c in (0, 2, 3)]
    # each with its own numbers
    assert len({cycle.curves[-1]["loss"] for cycle in found}) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize(
    ("system", "compile"), [("pmmo", False), ("pmmo", True), ("mmo", False), ("gmu", False)]
)
def test_cycles_together_are_those_trained_apart_on_a_gpu(system, compile):
    settings = row(system, device="cuda", **({"compile": compile} if system == "pmmo" else {}))
    splits = {name: type(b)(*(x.cuda() for x in b)) for name, b in SPLITS.items()}
    for cycle in train_cycles(settings, splits, [0, 1]):
        close(cycle, train_cycle(settings, splits, cycle.summary["cycle"]), 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("system", "changes"), [("pmmo", {}), ("pmmo", {"compile": True}), ("mmo", {}), ("gmu", {})]
)
def test_a_step_on_a_gpu_never_waits_for_it(system, changes):
    built = build_system(row(system, device="cuda", **changes), SIZES).cuda().train()
    batch = Batch(*(x.cuda() for x in SPLITS["train"]))
    built.train_step(batch, 0)
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that this mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        for _ in range(3):
            built.train_step(batch, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_training_together_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_cycles(row("pmmo"), SPLITS, [0, 1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cycle_that_diverges_names_itself_among_others(monkeypatch):
    settings = row("gmu")
    broken = settings.seed + 1

    def build(settings, sizes):
        system = build_system(settings, sizes)
        if torch.initial_seed() == broken:
            with torch.no_grad():
                next(system.classifier.parameters()).fill_(math.nan)
        return system

    monkeypatch.setattr("pmmo.training.loop.build_system", build)
    with pytest.raises(PmmoError, match="gmu, cycle 1: the loss is nan in epoch 1"):
        train_cycles(settings, SPLITS, [0, 1, 2])


@pytest.mark.parametrize("layer", [nn.Linear(G, G), nn.BatchNorm1d(G), nn.Dropout(0.5)])
def test_a_layer_that_takes_one_cycle_is_refused(layer):
    """`nn.Dropout` would give numbers that depend on the other cycles, without a word."""

    def build():
        system = build_system(row("gmu"), SIZES)
        system.classifier.append(layer)
        return system

    with pytest.raises(PmmoError, match=rf"classifier.\d+ is a torch.nn.{type(layer).__name__}"):
        build_together(build, (0, 1), CPU)


def test_streams_are_those_of_a_generator_each():
    torch.manual_seed(11)
    first = torch.rand(3), torch.rand(2)
    torch.manual_seed(12)
    second = torch.rand(3), torch.rand(2)
    streams = Streams(CPU)
    for seed in (11, 12):
        torch.manual_seed(seed)
        streams.add()
    torch.manual_seed(13)
    outside = torch.get_rng_state()
    for part in (0, 1):
        for cycle, numbers in enumerate((first, second)):
            with streams.of(cycle):
                assert torch.equal(torch.rand(3 - part), numbers[part])
    assert len(streams.states) == 2
    assert torch.equal(torch.get_rng_state(), outside)


def test_stacked_systems_share_the_memory_of_their_common_one():
    settings = row("pmmo")
    systems = [build_system(settings, SIZES) for _ in range(3)]
    values = [
        {k: v.clone() for k, v in system.state_dict(keep_vars=False).items()} for system in systems
    ]
    body = build_system(settings, SIZES)
    streams = Streams(CPU)
    stack(body, systems, streams)
    assert {m.streams for m in body.modules() if isinstance(m, Dropout)} == {streams}
    state = body.state_dict()
    for cycle, system in enumerate(systems):
        own = system.state_dict()
        assert own.keys() == state.keys()
        for name, value in own.items():
            assert torch.equal(value, values[cycle][name])
            assert value.data_ptr() == state[name][cycle].data_ptr()
    optimised = {id(p) for o in body.optimisers[1:] for g in o.param_groups for p in g["params"]}
    assert optimised == {id(p) for p in body.classifier.parameters()}


def test_batch_norm_takes_each_cycles_own_statistics():
    torch.manual_seed(0)
    x = torch.randn(3, 10, 4) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1)
    whole = BatchNorm(4)
    for name in ("weight", "bias"):
        getattr(whole, name).data = torch.randn(3, 4)
    whole.running_mean, whole.running_var = torch.zeros(3, 4), torch.ones(3, 4)
    found = whole(x)
    for cycle in range(3):
        alone = torch.nn.BatchNorm1d(4)
        alone.weight.data, alone.bias.data = whole.weight[cycle].data, whole.bias[cycle].data
        torch.testing.assert_close(found[cycle], alone(x[cycle]))
        torch.testing.assert_close(whole.running_var[cycle], alone.running_var)
        torch.testing.assert_close(whole.running_mean[cycle], alone.running_mean)


def test_max_norm_bounds_the_units_of_every_cycle_and_no_batch_norm():
    settings = row("gmu", max_norm=0.2)
    systems = [build_system(settings, SIZES) for _ in range(2)]
    expected = [build_system(settings, SIZES) for _ in systems]
    for system, copy in zip(systems, expected, strict=True):
        copy.load_state_dict(system.state_dict())
        apply_max_norm(copy.classifier, 0.2)
    body = build_system(settings, SIZES)
    stack(body, systems, Streams(CPU))
    apply_max_norm(body.classifier, 0.2)
    for system, copy in zip(systems, expected, strict=True):
        for name, value in copy.classifier.state_dict().items():
            torch.testing.assert_close(system.classifier.state_dict()[name], value)


@pytest.mark.parametrize("statistics", ["evaluation_set", "running"])
@pytest.mark.parametrize("system", ["pmmo", "mmo", "gmu"])
def test_cycles_are_scored_in_one_pass_with_the_probabilities_of_each(system, statistics):
    settings = row(system, batch_norm_eval=statistics)
    body, systems = build_together(lambda: build_system(settings, SIZES), (0, 1, 2), CPU)
    train, dev = (SPLITS[name] for name in ("train", "dev"))
    train_epoch(body, train, 0, [torch.Generator().manual_seed(seed) for seed in range(3)])
    before = {name: value.clone() for name, value in body.state_dict().items()}
    expected = [predict(one, dev.text, dev.image)[0] for one in systems]
    with patch.object(body, "predict", wraps=body.predict) as one_pass:
        found = predict_cycles(body, systems, dev.text, dev.image, (0, 1, 2))
    one_pass.assert_called_once()
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-5, atol=1e-6)
    assert body.training
    for name, value in body.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("closed_form", [False, True])
def test_distributions_of_several_cycles_are_each_cycles(closed_form):
    torch.manual_seed(0)
    shape = (3, 2)
    loc, log_scale = torch.randn(4, *shape), torch.randn(4, *shape)
    m, log_s = torch.randn(4), torch.randn(4)
    q, prior = WeightPosterior(loc, log_scale, m.shape), WeightPrior(m, log_s, shape)
    q, prior = fused(q, prior, closed_form=closed_form, penalty=Norm(2, True))
    value = torch.randn(4, *shape)
    found = (
        q.log_prob(value),
        prior.log_prob(value),
        torch.distributions.kl_divergence(q, prior),
        q.norm(Norm(1, True)),
    )
    assert prior.rsample().shape == (4, *shape)
    for cycle in range(4):
        own = WeightPrior(m[cycle], log_s[cycle], shape)
        alone = WeightPosterior(loc[cycle], log_scale[cycle])
        expected = (
            alone.log_prob(value[cycle]),
            own.log_prob(value[cycle]),
            torch.distributions.kl_divergence(alone, own),
            alone.norm(Norm(1, True)),
        )
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[cycle], theirs)


def test_how_many_take_their_steps_together():
    cuda = torch.device("cuda")
    five = row("pmmo", cycles=5)
    assert cycles_together(five, CPU) == 1
    assert cycles_together(five, cuda) == 5
    assert cycles_together(replace(five, cycles_together=2), CPU) == 2
    assert cycles_together(replace(five, cycles_together=2), cuda) == 2
    assert cycles_together(row("released"), cuda) == 1
    with pytest.raises(PmmoError, match="'released' has no such setting"):
        row("released", cycles_together=2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_groups_of_cycles_are_kept_and_taken_up(tmp_path, workers):
    settings = row("mmo", cycles=3, cycles_together=2)
    apart = run_cycles(row("mmo", cycles=3), SPLITS, tmp_path / "apart", 1)
    store = tmp_path / "together"
    for expected, found in zip(apart, run_cycles(settings, SPLITS, store, workers), strict=True):
        close(found, expected)
    kept = run_cycles(settings, SPLITS, store, workers)
    shutil.rmtree(store / "cycle-1")
    again = run_cycles(settings, SPLITS, store, workers)  # alone this time
    same_cycles(kept[0], again[0])
    same_cycles(kept[2], again[2])
    same_cycles(apart[1], again[1])


def test_a_device_that_is_too_small_is_named(tmp_path, monkeypatch):
    def train(*_):
        raise torch.OutOfMemoryError("tried to allocate 12.00 GiB")

    monkeypatch.setattr(cycles, "train_cycles", train)
    wanted = r"^gmu: cpu has too little memory for cycles 0, 1 .*set cycles_together to a smaller"
    with pytest.raises(PmmoError, match=wanted):
        run_cycles(row("gmu", cycles_together=2), SPLITS, tmp_path, 1)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def compiler():
    """torch.compile needs a C++ compiler on a CPU."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler")


@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("penalty", [None, Norm(1, True), Norm(2, False)])
@pytest.mark.parametrize("closed_form", [False, True])
def test_compiled_passes_are_the_plain_ones(closed_form, penalty):
    torch.compiler.reset()

    def evaluate(compile, cycles):
        torch.manual_seed(3)
        shape = (*cycles, 30, 7)
        loc, log_scale = torch.randn(shape), torch.randn(shape) - 3
        m, log_s = torch.randn(cycles), torch.randn(cycles)
        values = [v.requires_grad_() for v in (loc, log_scale, m, log_s)]
        streams = None
        if cycles:
            streams = Streams(CPU)
            for _ in range(*cycles):
                streams.add()
        along = Along(closed_form, penalty, compile)
        theta, *terms = draw(loc, log_scale, (m, log_s), along, streams)
        terms = [term for term in terms if term is not None]
        loss = theta.square().sum() + sum(k * t.sum() for k, t in enumerate(terms, 2))
        return [theta, *terms, *torch.autograd.grad(loss, values)]

    for cycles_axis in ((), (2,)):
        plain, compiled = (evaluate(compile, cycles_axis) for compile in (False, True))
        for ours, theirs in zip(compiled, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_cycle_is_the_plain_one():
    torch.compiler.reset()
    plain, compiled = (
        train_cycle(row("pmmo", compile=compile), SPLITS, 0) for compile in (False, True)
    )
    close(compiled, plain)


def test_a_compiler_that_fails_is_named(monkeypatch):
    """Also where Pyro would wrap the error while it traces."""

    def fail(function, **_):
        def run(*_):
            raise TorchRuntimeError("no compiler\nmore", None)

        return run

    monkeypatch.setattr(torch, "compile", fail)
    laplace_blocks.compiled.cache_clear()
    try:
        with pytest.raises(PmmoError, match=r"compile fails \(no compiler\); it needs a C\+\+"):
            train_cycle(row("pmmo", compile=True), SPLITS, 0)
    finally:
        laplace_blocks.compiled.cache_clear()


def test_a_missing_triton_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pmmo.kernels.triton_laplace", None)
    monkeypatch.delattr("pmmo.kernels.triton_laplace", raising=False)
    with pytest.raises(PmmoError, match=r"Triton cannot be imported \(.*it comes with the CUDA"):
        laplace_draw.triton_kernels.__wrapped__()


@pytest.mark.parametrize("system", ["pmmo", "mmo", "gmu"])
def test_bf16_rounds_products_of_training_alone(system):
    """Far coarser than float32 and still the same training; values and scores stay float32."""
    exact, coarse = (
        train_cycle(row(system, precision=precision), SPLITS, 0)
        for precision in ("float32", "bf16")
    )
    assert {v.dtype for v in coarse.state.values()} == {v.dtype for v in exact.state.values()}
    assert {v.dtype for v in coarse.predictions.values()} == {torch.float32}
    errors = [
        abs(ours["loss"] / theirs["loss"] - 1)
        for ours, theirs in zip(coarse.curves, exact.curves, strict=True)
    ]
    assert 1e-6 < errors[0] < 0.02
    assert errors[-1] < 0.05


def test_tf32_is_for_cuda():
    with pytest.raises(PmmoError, match="precision is 'tf32', which only CUDA devices have"):
        prepare_process(CPU, "tf32")
