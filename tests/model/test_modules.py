"""The networks against equations written by hand with numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pmmo.model.networks import (
    Fusion,
    Inputs,
    Maxout,
    apply_max_norm,
    evaluation_mode,
    fan_in_uniform,
    fuse,
    layer_shapes,
    maxout_classifier,
)

B, T, I, H, G = 6, 5, 7, 4, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def inputs(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(B, n, generator=generator, dtype=dtype) for n in (T, I))


def weights(gate_input, seed=0):
    torch.manual_seed(seed)
    shapes = layer_shapes(T, I, H, gate_input)
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def test_layer_shapes():
    shapes = layer_shapes(T, I, H, "outputs")
    assert shapes == {
        "text.weight": (H, T),
        "text.bias": (H,),
        "image.weight": (H, I),
        "image.bias": (H,),
        "gate.weight": (H, 2 * H),
        "gate.bias": (H,),
    }
    assert layer_shapes(T, I, H, "inputs") == shapes | {"gate.weight": (H, T + I)}


def test_fuse_is_equations_1_and_2():
    w, (text, image) = weights("outputs"), inputs()
    n = {name: value.numpy() for name, value in w.items()}
    v_t = np.tanh(text.numpy() @ n["text.weight"].T + n["text.bias"])
    v_i = np.tanh(image.numpy() @ n["image.weight"].T + n["image.bias"])
    v_cat = np.concatenate([v_t, v_i], axis=1)
    gate = sigmoid(v_cat @ n["gate.weight"].T + n["gate.bias"])
    z, found = fuse(w, text, image, "outputs")
    np.testing.assert_allclose(found, gate, rtol=1e-12)
    np.testing.assert_allclose(z, gate * v_i + (1 - gate) * v_t, rtol=1e-10)


def test_gmu_equations_of_arevalo():
    """h_v = tanh(W_v x_v), h_t = tanh(W_t x_t), z = sigma(W_z [x_v, x_t]), h = z h_v + (1-z) h_t,
    one movie at a time, with biases, which the publication leaves out (departure D17)."""
    w, (text, image) = weights("inputs", 1), inputs(1)
    n = {name: value.numpy() for name, value in w.items()}
    gate_text, gate_image = n["gate.weight"][:, :T], n["gate.weight"][:, T:]
    fused = fuse(w, text, image, "inputs")
    for row, (x_t, x_v) in enumerate(zip(text.numpy(), image.numpy(), strict=True)):
        h_v = np.tanh(n["image.weight"].dot(x_v) + n["image.bias"])
        h_t = np.tanh(n["text.weight"].dot(x_t) + n["text.bias"])
        z = sigmoid(gate_image.dot(x_v) + gate_text.dot(x_t) + n["gate.bias"])
        np.testing.assert_allclose(fused.z[row], z * h_v + (1 - z) * h_t, rtol=1e-10)
        np.testing.assert_allclose(fused.gate[row], z, rtol=1e-12)


@pytest.mark.parametrize("gate_input", ["outputs", "inputs"])
def test_gate_near_one_leans_on_the_image(gate_input):
    w, (text, image) = weights(gate_input), inputs()
    w["gate.weight"] = torch.zeros_like(w["gate.weight"])
    for bias, source, x in ((50.0, "image", image), (-50.0, "text", text)):
        w["gate.bias"] = torch.full((H,), bias, dtype=torch.float64)
        alone = torch.tanh(x @ w[f"{source}.weight"].T + w[f"{source}.bias"])
        torch.testing.assert_close(fuse(w, text, image, gate_input).z, alone)


@pytest.mark.parametrize("gate_input", ["outputs", "inputs"])
def test_fusion_is_fuse_with_its_parameters(gate_input):
    torch.manual_seed(0)
    fusion, (text, image) = Fusion(T, I, H, gate_input), inputs(dtype=torch.float32)
    named = dict(fusion.named_parameters())
    assert {k: tuple(v.shape) for k, v in named.items()} == layer_shapes(T, I, H, gate_input)
    for ours, expected in zip(
        fusion(text, image), fuse(named, text, image, gate_input), strict=True
    ):
        assert torch.equal(ours, expected)


def test_start_values_fill_the_fan_in_interval():
    torch.manual_seed(0)
    values = fan_in_uniform(layer_shapes(400, 100, 50, "outputs"))
    for layer, bound in (("text", 0.05), ("image", 0.1), ("gate", 0.1)):
        for kind in ("weight", "bias"):
            value = values[f"{layer}.{kind}"]
            assert value.abs().max() <= bound
            assert value.max() > 0.8 * bound
            assert value.min() < -0.8 * bound


def test_maxout_on_six_numbers():
    maxout = Maxout(1, units=3, pieces=2)
    with torch.no_grad():
        maxout.linear.weight.copy_(torch.tensor([[1.0], [2.0], [-1.0], [-3.0], [0.0], [5.0]]))
        maxout.linear.bias.copy_(torch.tensor([0.0, -1.0, 0.0, 1.0, 7.0, 0.0]))
    # x = 2: 2, 3 | -2, -5 | 7, 10      x = -1: -1, -3 | 1, 4 | 7, -5
    expected = torch.tensor([[3.0, -2.0, 10.0], [-1.0, 4.0, 7.0]])
    assert torch.equal(maxout(torch.tensor([[2.0], [-1.0]])), expected)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("order", ["gmu", "released"])
def test_classifier_layers(batch_norm, order):
    c = maxout_classifier(
        H, G, units=8, layers=2, pieces=2, dropout=0.3, batch_norm=batch_norm, order=order
    )
    norm = [nn.BatchNorm1d] * batch_norm
    kinds = {
        "gmu": [*norm, Maxout, nn.Dropout, *norm, Maxout, nn.Dropout, nn.Linear],
        "released": [*norm, Maxout, *norm, nn.Dropout, Maxout, *norm, nn.Linear],
    }[order]
    assert len(c) == len(kinds)
    assert all(isinstance(layer, kind) for layer, kind in zip(c, kinds, strict=True))
    assert {m.p for m in c if isinstance(m, nn.Dropout)} == {0.3}
    assert [m.linear.weight.shape for m in c if isinstance(m, Maxout)] == [(16, H), (16, 8)]
    assert c(torch.randn(B, H)).shape == (B, G)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), bound=st.floats(0.1, 10))
def test_max_norm_bounds_each_units_incoming_weights(seed, bound):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.BatchNorm1d(5), Maxout(5, 3, 2), nn.Linear(3, 4))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    apply_max_norm(module, bound)
    for name, value in module.state_dict().items():
        if value.ndim < 2:
            assert torch.equal(value, before[name])  # biases and batch norm's weights
            continue
        norm = before[name].norm(dim=1)
        small = norm <= bound
        torch.testing.assert_close(value[small], before[name][small], rtol=3e-7, atol=0)
        assert (value.norm(dim=1) <= bound * (1 + 1e-6)).all()
        scaled = before[name] * (bound / norm)[:, None]
        torch.testing.assert_close(value[~small], scaled[~small])


@pytest.mark.parametrize(
    "bound",
    [
        5.0,  # the default of params.yaml
        1.0,
        5.618432121934064,
    ],
)
def test_max_norm_leaves_small_rows_as_they_are(bound):
    torch.manual_seed(0)
    layer = nn.Linear(5, 30)
    before = layer.weight.detach().clone()
    assert before.norm(dim=1).max() < 1
    apply_max_norm(layer, bound)
    assert torch.equal(layer.weight, before)


def test_max_norm_of_zero_rows():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]))
    apply_max_norm(layer, 1.0)
    torch.testing.assert_close(layer.weight.data, torch.tensor([[0.0, 0, 0], [0.6, 0.8, 0]]))


def test_inputs_without_batch_norm_are_the_inputs():
    text, image = inputs()
    found = Inputs(T, I, enabled=False)(text, image)
    assert found[0] is text
    assert found[1] is image


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs = Inputs(T, I, enabled=True)
        self.c = maxout_classifier(
            T + I, G, units=4, layers=1, pieces=2, dropout=0.5, batch_norm=True, order="gmu"
        )

    def forward(self, text, image):
        return self.c(torch.cat(self.inputs(text, image), 1))


@pytest.mark.parametrize("how", ["evaluation_set", "running"])
@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_mode_leaves_everything_as_it_was(how, fails):
    torch.manual_seed(0)
    both, (text, image) = Both(), inputs(dtype=torch.float32)
    both(text, image)  # running statistics that are not the initial ones
    both.inputs.image.eval()  # a mixture of modes
    state = {k: v.clone() for k, v in both.state_dict().items()}
    modes = [m.training for m in both.modules()]

    class Broken(Exception):
        pass

    try:
        with evaluation_mode(both, how), torch.no_grad():
            first, second = both(text * 3, image - 1), both(text * 3, image - 1)
            assert torch.equal(first, second)  # no dropout
            assert not any(m.training for m in both.modules() if isinstance(m, nn.Dropout))
            if fails:
                raise Broken
    except Broken:
        assert fails
    assert [m.training for m in both.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in both.state_dict().items())
    assert {m.momentum for m in both.modules() if isinstance(m, nn.BatchNorm1d)} == {0.1}


def test_evaluation_set_is_normalised_by_its_own_mean_and_biased_variance():
    both, (text, _) = Inputs(T, I, enabled=True), inputs(dtype=torch.float32)
    image = torch.randn(B, I) * 4 + 2
    with evaluation_mode(both, "evaluation_set"), torch.no_grad():
        found = both(text, image)
    for ours, x in zip(found, (text, image), strict=True):
        x = x.double().numpy()
        expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_used_with_running():
    layer, (text, image) = Inputs(T, I, enabled=True), inputs(dtype=torch.float32)
    layer.text.running_mean.fill_(2.0)
    layer.text.running_var.fill_(4.0)
    with evaluation_mode(layer, "running"), torch.no_grad():
        found, _ = layer(text, image)
    torch.testing.assert_close(found, (text - 2) / (4 + 1e-5) ** 0.5)
