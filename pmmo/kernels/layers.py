"""torch's layers for one cycle, or for several that are trained together.

Of one cycle they are torch's own. Several cycles (C) have a leading axis: values are (C, B, F),
parameters (C, ...), and every cycle sees its own statistics and its own random numbers.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from pmmo.kernels.random_streams import Streams


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b: (B, F), (H, F), (H,) -> (B, H), or all of them with an axis of cycles in front."""
    if weight.ndim == 2:
        return functional.linear(x, weight, bias)
    return _StackedLinear.apply(x, weight, bias)


class _StackedLinear(Function):
    """x W^T + b of C cycles: (C, B, F), (C, H, F), (C, H) -> (C, B, H).

    autograd's own gradient of W is a transposed product, which the optimiser would copy.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)  # bfloat16 under autocast
        ctx.save_for_backward(x.to(y.dtype), weight.to(y.dtype))
        return y

    @staticmethod
    def backward(ctx, by_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return by_y @ weight, by_y.mT @ x, by_y.sum(-2)  # (C, B, F), (C, H, F), (C, H)


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class BatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return super().forward(x)
        if self.training:
            self.num_batches_tracked.add_(1)
        cycles, movies, _ = x.shape
        wide = functional.batch_norm(
            x.transpose(0, 1).reshape(movies, -1),  # (B, C F): the statistics of each are its own
            *(v.view(-1) for v in (self.running_mean, self.running_var, self.weight, self.bias)),
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        return wide.view(movies, cycles, -1).transpose(0, 1)  # (C, B, F)


class Dropout(nn.Dropout):
    streams: Streams | None = None  # of the leading axis

    def forward(self, x: Tensor) -> Tensor:
        if self.streams is None or not self.training:
            return super().forward(x)
        kept = []
        for cycle, own in enumerate(x):
            with self.streams.of(cycle):
                kept.append(super().forward(own))
        return torch.stack(kept)
