"""Laplace distributions over whole weight tensors, evaluated in few passes over memory.

`WeightPosterior` and `WeightPrior` are Pyro distributions equal to `Laplace(...).to_event()`, term
by term and gradient by gradient (the tests hold them against it). What makes them fast: a draw
evaluates every term of the objective that its weights have (`Along`), and their gradient, in
blocks that stay in the cache. With n weights, eps ~ Laplace(0, 1), a = |loc - m|, e = exp(-a/b):

    theta = loc + b eps
    log q(theta) = -sum |eps| - sum log b - n log 2            depends on eps and b alone
    log p(theta) = -sum |theta - m|/s - n (log s + log 2)
    KL(q || p)   = sum (a + b e)/s - sum log b + n (log s - 1)

Cycles that are trained together (`pmmo.training.stacking`) have a leading axis in loc, log_scale,
m and s; each then has its own draw and its own terms, (C,) instead of scalars.
"""

import math
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from pmmo.kernels.laplace_blocks import Norm
from pmmo.kernels.laplace_draw import ONE_DRAW, Along, Terms, _Draw, per_weight


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
        values = value.reshape(*self.loc.shape, -1)  # (n,) or (C, n)
        distance = (values - per_weight(self.loc)).abs().sum(-1) * torch.exp(-self.log_scale)
        return -distance - self.weights * (self.log_scale + math.log(2))


class WeightPosterior(TorchDistribution):
    """Laplace(loc, exp(log_scale)) of one weight tensor; the tensor is one event.

    Of several cycles where `along` says so: terms are (C,) then.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor, along: Along | None = None) -> None:
        self.loc, self.log_scale, self.along = loc, log_scale, along
        self.drawn: Tensor | None = None
        self.terms: Terms | None = None
        super().__init__(event_shape=loc.shape, validate_args=False)

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        if sample_shape:
            raise ValueError("a weight posterior draws one tensor at a time")
        prior = (
            (None, None)
            if self.along is None
            else (self.along.prior.loc, self.along.prior.log_scale)
        )
        self.drawn, *terms = _Draw.apply(self.loc, self.log_scale, *prior, self.along)
        self.terms = Terms(*terms)
        return self.drawn

    def log_prob(self, value: Tensor) -> Tensor:
        """log q of this object's own last draw, or of any other tensor."""
        if value is self.drawn:
            return self.terms.log_q
        distance = (value - self.loc).abs() * torch.exp(-self.log_scale)
        return -self.sum(distance + self.log_scale + math.log(2))

    def log_p(self, value: Tensor, prior: "WeightPrior") -> Tensor:
        """The prior's log p of a value: from the draw's own pass where it evaluated that."""
        drawn = value is self.drawn and self.knows(prior) and self.terms.log_p is not None
        return self.terms.log_p if drawn else prior.log_prob(value)

    def norm(self, penalty: Norm) -> Tensor:
        """`penalty` of this posterior's parameters."""
        if self.terms is not None and self.along and self.along.penalty == penalty:
            return self.terms.penalty
        values = (self.loc, self.log_scale.exp()) if penalty.on_scale else (self.loc,)
        return sum(self.sum(v.abs().pow(penalty.power)) for v in values)

    @property
    def weights(self) -> int:
        """How many there are in one cycle."""
        return self.loc.numel() // self.cycles.numel()

    @property
    def cycles(self) -> torch.Size:
        return ONE_DRAW if self.along is None else self.along.cycles

    def sum(self, values: Tensor) -> Tensor:
        """Over the weights, of each cycle."""
        return values.reshape(*self.cycles, -1).sum(-1)

    def knows(self, prior: "WeightPrior") -> bool:
        """Whether the last draw evaluated terms of this prior."""
        known = self.along.prior if self.along and self.terms else None
        return known is not None and known.loc is prior.loc and known.log_scale is prior.log_scale


@register_kl(WeightPosterior, WeightPrior)
def _kl_posterior_prior(q: WeightPosterior, p: WeightPrior) -> Tensor:
    if q.knows(p) and q.terms.kl is not None:
        return q.terms.kl
    loc, log_scale = (v.reshape(*p.loc.shape, -1) for v in (q.loc, q.log_scale))
    m, log_s = per_weight(p.loc), per_weight(p.log_scale)
    a, b = (loc - m).abs(), log_scale.exp()
    return ((a + b * torch.exp(-a / b)) / log_s.exp() - log_scale + log_s - 1).sum(-1)
