"""Laplace distributions over whole weight tensors, as Pyro distributions.

`WeightPosterior` and `WeightPrior` are equal to `Laplace(...).to_event()`. `fused(q, p)` returns
the same two distributions, evaluated faster: the pass that draws theta also evaluates log q, log p
or the KL divergence, and the penalty; one backward pass has all their gradients (laplace_draw.py).
"""

import math
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from pmmo.kernels.laplace_blocks import Norm
from pmmo.kernels.laplace_draw import Along, Draw, draw, per_weight
from pmmo.kernels.random_streams import Streams

ONE_DRAW = torch.Size()


class WeightPrior(TorchDistribution):
    """Laplace(loc, exp(log_scale)) with scalar parameters over one weight tensor.

    Of several cycles: loc and log_scale (C,), `shape` the tensor's of one cycle.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor, shape: tuple[int, ...]) -> None:
        self.loc, self.log_scale = loc, log_scale
        self.weights = math.prod(shape)  # of one cycle
        super().__init__(event_shape=torch.Size((*loc.shape, *shape)), validate_args=False)

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        shape, one = sample_shape + self.event_shape, (1,) * len(self.event_shape)
        loc, log_scale = (
            v.view(*v.shape, *one[v.ndim :]).expand(shape).contiguous()
            for v in (self.loc, self.log_scale)
        )
        return WeightPosterior(loc, log_scale).rsample()

    def log_prob(self, value: Tensor) -> Tensor:
        """log p, () or (C,)."""
        values = value.reshape(*self.loc.shape, -1)  # (n,) or (C, n)
        distance = (values - per_weight(self.loc)).abs().sum(-1) * torch.exp(-self.log_scale)
        return -distance - self.weights * (self.log_scale + math.log(2))


class WeightPosterior(TorchDistribution):
    """Laplace(loc, exp(log_scale)) of one weight tensor; the tensor is one event.

    Of several cycles: `cycles` is (C,), the leading axis of loc and log_scale, and `streams` has
    a random stream for each.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        log_scale: Tensor,
        cycles: torch.Size = ONE_DRAW,
        streams: Streams | None = None,
    ) -> None:
        self.loc, self.log_scale = loc, log_scale
        self.cycles, self.streams = cycles, streams
        self.weights = loc.numel() // cycles.numel()  # of one cycle
        super().__init__(event_shape=loc.shape, validate_args=False)

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        if sample_shape:
            raise ValueError("a weight posterior draws one tensor at a time")
        return draw(self.loc, self.log_scale, streams=self.streams).theta

    def log_prob(self, value: Tensor) -> Tensor:
        """log q, () or (C,)."""
        distance = (value - self.loc).abs() * torch.exp(-self.log_scale)
        return -self.sum(distance + self.log_scale + math.log(2))

    def norm(self, norm: Norm) -> Tensor:
        """sum |v|^power over the locations, and the scales, () or (C,)."""
        values = (self.loc, self.log_scale.exp()) if norm.on_scale else (self.loc,)
        return sum(self.sum(v.abs().pow(norm.power)) for v in values)

    def sum(self, values: Tensor) -> Tensor:
        """Over the weights, () or (C,)."""
        return values.reshape(*self.cycles, -1).sum(-1)


@register_kl(WeightPosterior, WeightPrior)
def _kl_posterior_prior(q: WeightPosterior, p: WeightPrior) -> Tensor:
    loc, log_scale = (v.reshape(*p.loc.shape, -1) for v in (q.loc, q.log_scale))
    m, log_s = per_weight(p.loc), per_weight(p.log_scale)
    a, b = (loc - m).abs(), log_scale.exp()
    return ((a + b * torch.exp(-a / b)) / log_s.exp() - log_scale + log_s - 1).sum(-1)


def fused(
    q: WeightPosterior,
    p: WeightPrior,
    *,
    closed_form: bool,
    penalty: Norm | None = None,
    compile: bool = False,
) -> tuple["FusedPosterior", "FusedPrior"]:
    """q and p, whose terms at q's draw come from the pass that draws it.

    `closed_form` evaluates KL(q || p) instead of log p; `penalty` is a norm of q's parameters.
    Every other term and value is computed as by q and p themselves.
    """
    posterior = FusedPosterior(q, p, Along(closed_form, penalty, compile))
    return posterior, FusedPrior(p, posterior)


class FusedPosterior(WeightPosterior):
    def __init__(self, q: WeightPosterior, p: WeightPrior, along: Along) -> None:
        super().__init__(q.loc, q.log_scale, q.cycles, q.streams)
        self.p, self.along = p, along
        self.drawn: Draw | None = None

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        if sample_shape:
            raise ValueError("a weight posterior draws one tensor at a time")
        prior = (self.p.loc, self.p.log_scale)
        self.drawn = draw(self.loc, self.log_scale, prior, self.along, self.streams)
        return self.drawn.theta

    def drew(self, value: Tensor) -> bool:
        return self.drawn is not None and value is self.drawn.theta

    def log_prob(self, value: Tensor) -> Tensor:
        return self.drawn.log_q if self.drew(value) else super().log_prob(value)

    def norm(self, norm: Norm) -> Tensor:
        evaluated = self.drawn is not None and norm == self.along.penalty
        return self.drawn.penalty if evaluated else super().norm(norm)


class FusedPrior(WeightPrior):
    def __init__(self, p: WeightPrior, q: FusedPosterior) -> None:
        super().__init__(p.loc, p.log_scale, p.event_shape[p.loc.ndim :])
        self.q = q

    def log_prob(self, value: Tensor) -> Tensor:
        evaluated = self.q.drew(value) and not self.q.along.closed_form
        return self.q.drawn.log_p if evaluated else super().log_prob(value)


@register_kl(FusedPosterior, FusedPrior)
def _kl_fused(q: FusedPosterior, p: FusedPrior) -> Tensor:
    evaluated = p.q is q and q.drawn is not None and q.along.closed_form
    return q.drawn.kl if evaluated else _kl_posterior_prior(q, p)
