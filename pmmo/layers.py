"""torch's layers for one cycle, or for several that are trained together.

Of one cycle they are torch's own. Several cycles (C) have a leading axis: values are (C, B, F),
parameters (C, ...), and every cycle sees its own statistics and its own random numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


class Streams:
    """The random streams of cycles that are trained together, as states of torch's generator.

    Each cycle draws the numbers that it draws when it is trained alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.states: list[Tensor] = []

    def add(self) -> None:
        """Begin another stream where torch's generator of the device stands now."""
        self.states.append(self._generator().get_state())

    @contextmanager
    def of(self, cycle: int) -> Iterator[None]:
        """Random numbers of the device come from this stream; torch's own is left as it was."""
        generator = self._generator()
        outside = generator.get_state()
        generator.set_state(self.states[cycle])
        try:
            yield
        finally:
            self.states[cycle] = generator.get_state()
            generator.set_state(outside)

    def _generator(self) -> torch.Generator:
        if self.device.type != "cuda":
            return torch.default_generator
        index = self.device.index
        return torch.cuda.default_generators[
            torch.cuda.current_device() if index is None else index
        ]


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b: (B, F), (H, F), (H,) -> (B, H), or all of them with an axis of cycles in front."""
    if weight.ndim == 2:
        return functional.linear(x, weight, bias)
    return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)  # (C, B, H)


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class BatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return super().forward(x)
        self.num_batches_tracked.add_(1)
        cycles, movies, _ = x.shape
        wide = functional.batch_norm(
            x.transpose(0, 1).reshape(movies, -1),  # (B, C F): the statistics of each are its own
            *(v.view(-1) for v in (self.running_mean, self.running_var, self.weight, self.bias)),
            training=True,
            momentum=self.momentum,
            eps=self.eps,
        )
        return wide.view(movies, cycles, -1).transpose(0, 1)  # (C, B, F)


class Dropout(nn.Dropout):
    streams: Streams | None = None  # of the leading axis

    def forward(self, x: Tensor) -> Tensor:
        if self.streams is None:
            return super().forward(x)
        kept = []
        for cycle, own in enumerate(x):
            with self.streams.of(cycle):
                kept.append(super().forward(own))
        return torch.stack(kept)
