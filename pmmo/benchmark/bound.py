"""The hardware bound: the time of the step's matrix products and memory traffic at measured rates.

    bound = sum over the step's matrix products of the time each takes here, alone
          + bytes / bandwidth
    bytes = 4 (17 P + 7 C)

P is the number of random weights. The draw reads location and log-scale and writes the weight (3).
The update reads gradient, weight, and value and two moments of location and log-scale, and writes
these six (14). C is the number of other weights. For them Adam reads value, gradient and two
moments and writes three (7). In a system without posterior the fusion's weights count as C.
Reading weights for a product and writing their gradient belong to the product. The bound leaves
out activations, random numbers and logarithms, so a step cannot quite reach it.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from pmmo.benchmark.cases import Case
from pmmo.benchmark.stopwatch import seconds_of
from pmmo.model.networks import LAYERS, layer_shapes

PASSES_RANDOM, PASSES_OTHER = 17, 7
BANDWIDTH_FLOATS = 32 * 1024 * 1024  # 128 MiB, larger than any cache


def layers(case: Case) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each linear layer of the step."""
    s, shape = case.settings, case.shape
    shapes = layer_shapes(shape.text, shape.image, s.width, s.gate_input)
    found = {layer: (shapes[f"{layer}.weight"][1], s.width) for layer in LAYERS}
    if s.readout == "own":
        found["readout"] = (s.width, shape.genres)
    inputs = s.width
    for layer in range(s.maxout_layers):
        found[f"maxout {layer + 1}"] = (inputs, s.maxout_units * s.maxout_pieces)
        inputs = s.maxout_units
    return found | {"output": (inputs, shape.genres)}


def traffic(case: Case) -> int:
    """Bytes per step outside the products (see above)."""
    counts = {name: (i + 1) * o for name, (i, o) in layers(case).items()}
    fusion = sum(counts[layer] for layer in LAYERS)
    other = sum(counts.values()) - fusion
    random = case.settings.system == "pmmo"
    passes = (PASSES_RANDOM if random else PASSES_OTHER) * fusion + PASSES_OTHER * other
    return 4 * passes


def products(case: Case, rows: int) -> Iterator[tuple[int, Callable[[], Tensor]]]:
    """(floating-point operations, product) of the output, the weights' and the inputs' gradient.

    Every layer needs the gradient of its inputs; the first two need it for their batch norm.
    """
    for name, (inputs, outputs) in layers(case).items():
        x, weight, grad = (
            torch.rand(a, b, device=case.device)
            for a, b in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        y, grad_weight, grad_x = (
            torch.empty_like(grad),
            torch.empty_like(weight),
            torch.empty_like(x),
        )
        work = 2 * rows * inputs * outputs
        yield work, partial(torch.mm, x, weight.T, out=y)
        yield work, partial(torch.mm, grad.T, x, out=grad_weight)
        if case.settings.batch_norm or name not in ("text", "image"):
            yield work, partial(torch.mm, grad, weight, out=grad_x)


class Bound:
    """Measures the bound of a case; `rates` has the rates of the last measurement."""

    def __init__(self, case: Case) -> None:
        rows = -(-case.shape.movies // case.steps_per_epoch)
        self.products = list(products(case, rows))
        self.bytes = traffic(case)
        self.device = case.device
        a, b, c = torch.rand(3, BANDWIDTH_FLOATS, device=case.device)
        self.addition = partial(torch.add, a, b, out=c)
        self.rates: dict[str, float] = {}

    def seconds(self) -> float:
        work = sum(operations for operations, _ in self.products)
        multiplying = sum(seconds_of(product, 1, self.device) for _, product in self.products)
        moving = seconds_of(self.addition, 3, self.device)
        bandwidth = 3 * 4 * BANDWIDTH_FLOATS / moving
        self.rates = {
            "gflops": work / multiplying / 1e9,
            "gigabytes_per_second": bandwidth / 1e9,
            "gflop": work / 1e9,
            "gigabytes": self.bytes / 1e9,
            "products_ms": 1e3 * multiplying,
            "traffic_ms": 1e3 * self.bytes / bandwidth,
        }
        return multiplying + self.bytes / bandwidth
