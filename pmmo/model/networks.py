"""The networks, in plain PyTorch: fusion (Eq. 1, 2), maxout classifier, batch norm and max-norm.

`fuse` is a function of its weights, so that the same lines serve deterministic weights (GMU,
M+MO) and weights drawn from a posterior (PM+MO). B movies, H hidden units, T and I input widths,
G genres. All of it takes an axis of cycles in front of those (`pmmo.kernels.layers`).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pmmo.kernels.layers import BatchNorm, Dropout, Linear, linear

LAYERS = ("text", "image", "gate")  # the "three wide hidden layers" of section 3.1


class Fused(NamedTuple):
    z: Tensor  # (B, H) fused embedding, Eq. 2
    gate: Tensor | None  # (B, H) in (0, 1); 1 leans on the image; None: there is none


def layer_shapes(text: int, image: int, hidden: int, gate_input: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights and biases of the three layers, keyed `layer.weight`, `layer.bias`."""
    fan_in = {
        "text": text,
        "image": image,
        "gate": 2 * hidden if gate_input == "outputs" else text + image,
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS:
        shapes[f"{layer}.weight"] = (hidden, fan_in[layer])
        shapes[f"{layer}.bias"] = (hidden,)
    return shapes


def fan_in_uniform(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Start values U(-a, a), a = 1/sqrt(fan in), for weights and biases, as `nn.Linear` has."""
    values = {}
    for name, shape in shapes.items():
        layer = name.split(".")[0]
        bound = 1 / math.sqrt(shapes[f"{layer}.weight"][1])
        values[name] = torch.empty(shape).uniform_(-bound, bound)
    return values


def unimodal(weights: Mapping[str, Tensor], text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """The layers of text (B, T) and image (B, I): v_t and v_i, (B, H) each."""
    v_t = torch.tanh(linear(text, weights["text.weight"], weights["text.bias"]))  # (B, H)
    v_i = torch.tanh(linear(image, weights["image.weight"], weights["image.bias"]))  # (B, H)
    return v_t, v_i


def mix(weights: Mapping[str, Tensor], v_t: Tensor, v_i: Tensor, v_cat: Tensor) -> Fused:
    """Eq. 2, with a gate that the third layer makes of v_cat."""
    gate = torch.sigmoid(linear(v_cat, weights["gate.weight"], weights["gate.bias"]))  # (B, H)
    return Fused(z=gate * v_i + (1 - gate) * v_t, gate=gate)


def fuse(weights: Mapping[str, Tensor], text: Tensor, image: Tensor, gate_input: str) -> Fused:
    """Text (B, T) and image (B, I) -> fused embedding z (B, H) and gate (B, H).

    Eq. 2 as printed multiplies v_cat (B, 2H) by v_i (B, H); a third layer maps v_cat, or the raw
    inputs as in the original GMU, to a gate of shape (B, H) (departure D1).
    """
    v_t, v_i = unimodal(weights, text, image)
    pair = (v_t, v_i) if gate_input == "outputs" else (text, image)
    v_cat = torch.cat(pair, dim=-1)  # (B, 2H) Eq. 1, or (B, T + I)
    return mix(weights, v_t, v_i, v_cat)


class Fusion(nn.Module):
    """`fuse` with deterministic weights: the GMU, and module A of M+MO."""

    def __init__(self, text: int, image: int, hidden: int, gate_input: str) -> None:
        super().__init__()
        self.gate_input = gate_input
        start = fan_in_uniform(layer_shapes(text, image, hidden, gate_input))
        for layer in LAYERS:
            module = nn.Module()
            module.weight = nn.Parameter(start[f"{layer}.weight"])
            module.bias = nn.Parameter(start[f"{layer}.bias"])
            self.add_module(layer, module)

    def forward(self, text: Tensor, image: Tensor) -> Fused:
        return fuse(dict(self.named_parameters()), text, image, self.gate_input)


class Columns(nn.Module):
    """No fusion: one column as it is (`inputs`: text, image), or both side by side (both)."""

    def __init__(self, inputs: str) -> None:
        super().__init__()
        self.inputs = inputs

    def forward(self, text: Tensor, image: Tensor) -> Fused:
        columns = {"text": (text,), "image": (image,), "both": (text, image)}[self.inputs]
        return Fused(z=torch.cat(columns, dim=-1), gate=None)  # (B, T), (B, I) or (B, T + I)


class Inputs(nn.Module):
    """Batch norm of each input, or none (`enabled=False`)."""

    def __init__(self, text: int, image: int, enabled: bool) -> None:
        super().__init__()
        self.text = BatchNorm(text) if enabled else nn.Identity()
        self.image = BatchNorm(image) if enabled else nn.Identity()

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.text(text), self.image(image)  # (B, T), (B, I)


class Maxout(nn.Module):
    """`units` maxima over `pieces` linear functions each (Goodfellow et al. 2013)."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = Linear(inputs, units * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(-1, (-1, self.pieces)).amax(-1)  # (B, units)


def maxout_classifier(
    inputs: int,
    outputs: int,
    *,
    units: int,
    layers: int,
    pieces: int,
    dropout: float,
    batch_norm: bool,
    order: str,
) -> nn.Sequential:
    """Module C: `layers` maxout layers and a linear output of logits (B, G).

    `order` is `gmu`: batch norm, maxout, dropout in each layer; or `released`, as in the authors'
    code: batch norm before every layer, the output's too, and one dropout, which acts on the input
    of the last maxout layer (departure D13).
    """
    steps: list[nn.Module] = []
    width = inputs
    for layer in range(layers):
        steps += [BatchNorm(width)] if batch_norm else []
        if order == "released" and layer == layers - 1:
            steps.append(Dropout(dropout))
        steps.append(Maxout(width, units, pieces))
        if order == "gmu":
            steps.append(Dropout(dropout))  # departure D23
        width = units
    steps += [BatchNorm(width)] if batch_norm and order == "released" else []
    return nn.Sequential(*steps, Linear(width, outputs))


@torch.no_grad()
def apply_max_norm(module: nn.Module, max_norm: float) -> None:
    """Scale each unit's incoming weight vector down to at most `max_norm` (Srivastava et al.)."""
    for layer in module.modules():
        weight = dict(layer.named_parameters(recurse=False)).get("weight")
        if weight is not None and not isinstance(layer, nn.BatchNorm1d):
            norm = weight.norm(dim=-1, keepdim=True)  # (units, 1)
            weight.mul_((max_norm / norm).clamp_(max=1))


@contextmanager
def evaluation_mode(module: nn.Module, batch_norm: str) -> Iterator[None]:
    """Dropout off; batch norm by `batch_norm`: the statistics of the evaluated set or running ones.

    The original GMU code normalises an evaluation set by its own statistics (departure D9).
    Leaves the running statistics and the training mode as they were.
    """
    modes = {child: child.training for child in module.modules()}
    momenta = {m: m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm1d)}
    counts = {m: m.num_batches_tracked.clone() for m in momenta}
    module.eval()
    if batch_norm == "evaluation_set":
        for layer in momenta:
            layer.train()
            layer.momentum = 0.0  # batch statistics are used, running ones stay
    try:
        yield
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(counts[layer])
        for child, training in modes.items():
            child.training = training
