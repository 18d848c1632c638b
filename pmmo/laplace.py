"""Laplace distributions over whole weight tensors, evaluated in few passes over memory.

`WeightPosterior` and `WeightPrior` are Pyro distributions equal to `Laplace(...).to_event()`, term
by term and gradient by gradient (the tests hold them against it). What they save: for
theta = loc + b eps, log q(theta) depends on eps and b alone, so it falls out of the draw; and each
formula's gradient is written down instead of being recorded operation by operation.
"""

import math
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.autograd import Function
from torch.distributions import constraints, register_kl

ONE_DRAW = torch.Size()
SMALLEST_UNIFORM = 2.0**-25  # half of a float32 uniform's step: keeps log|u| finite


class _Draw(Function):
    """(loc, log_scale) -> theta = loc + b eps and log q(theta), a scalar; eps ~ Laplace(0, 1)."""

    @staticmethod
    def forward(ctx, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.empty_like(loc).uniform_(-1, 1)
        log_u = u.abs().clamp_(min=SMALLEST_UNIFORM).log_()  # -|eps|
        log_q = log_u.sum() - log_scale.sum() - loc.numel() * math.log(2)
        step = torch.copysign(log_u, u, out=u).mul_(log_scale.exp())  # b eps
        ctx.save_for_backward(step)
        return loc + step, log_q

    @staticmethod
    def backward(ctx, grad_theta: Tensor, grad_log_q: Tensor) -> tuple[Tensor, Tensor]:
        (step,) = ctx.saved_tensors
        # along the draw: d theta/d log_scale = b eps, d log q/d loc = 0, d log q/d log_scale = -1
        return grad_theta, torch.addcmul(-grad_log_q, grad_theta, step)


class _LogPrior(Function):
    """Sum of log Laplace(theta; loc, exp(log_scale)) for scalar loc and log_scale."""

    @staticmethod
    def forward(ctx, theta: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        difference = theta - loc
        distance = difference.abs().sum() / log_scale.exp()
        ctx.save_for_backward(difference, distance, log_scale)
        return -distance - theta.numel() * (log_scale + math.log(2))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        difference, distance, log_scale = ctx.saved_tensors
        grad_theta = difference.sign().mul_(-grad / log_scale.exp())
        grad_loc = -grad_theta.sum() if ctx.needs_input_grad[1] else None
        return grad_theta, grad_loc, grad * (distance - difference.numel())


class _KL(Function):
    """Sum of KL(Laplace(loc, b) || Laplace(m, s)) for scalar m and s, in closed form."""

    @staticmethod
    def forward(ctx, loc: Tensor, log_scale: Tensor, m: Tensor, log_s: Tensor) -> Tensor:
        s = log_s.exp()
        difference = loc - m
        distance = difference.abs()  # a
        scale = log_scale.exp()  # b
        decay = torch.div(distance, scale).neg_().exp_()  # e = exp(-a/b)
        spread = torch.addcmul(distance, scale, decay).sum() / s  # sum of (a + b e)/s
        kl = spread - log_scale.sum() + loc.numel() * (log_s - 1)
        grad_log_scale = scale.add_(distance).mul_(decay).div_(s).sub_(1)  # (b + a) e/s - 1
        grad_loc = difference.sign_().mul_(decay.neg_().add_(1)).div_(s)  # sign (1 - e)/s
        ctx.save_for_backward(grad_loc, grad_log_scale, loc.numel() - spread)
        return kl

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        grad_loc, grad_log_scale, grad_log_s = ctx.saved_tensors
        return grad * grad_loc, grad * grad_log_scale, -grad * grad_loc.sum(), grad * grad_log_s


class WeightPosterior(TorchDistribution):
    """Laplace(loc, exp(log_scale)) of one weight tensor; the tensor is one event."""

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = loc, log_scale
        self._drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(event_shape=loc.shape, validate_args=False)

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        if sample_shape:
            raise ValueError("a weight posterior draws one tensor at a time")
        self._drawn = _Draw.apply(self.loc, self.log_scale)
        return self._drawn[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """log q of this object's own last draw, or of any other tensor."""
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]
        distance = (value - self.loc).abs() * torch.exp(-self.log_scale)
        return -(distance + self.log_scale + math.log(2)).sum()


class WeightPrior(TorchDistribution):
    """Laplace(loc, exp(log_scale)) with scalar parameters over one weight tensor."""

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor, shape: tuple[int, ...]) -> None:
        self.loc, self.log_scale = loc, log_scale
        super().__init__(event_shape=torch.Size(shape), validate_args=False)

    def rsample(self, sample_shape: torch.Size = ONE_DRAW) -> Tensor:
        shape = sample_shape + self.event_shape
        return _Draw.apply(self.loc.expand(shape), self.log_scale.expand(shape))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        return _LogPrior.apply(value, self.loc, self.log_scale)


@register_kl(WeightPosterior, WeightPrior)
def _kl_posterior_prior(q: WeightPosterior, p: WeightPrior) -> Tensor:
    return _KL.apply(q.loc, q.log_scale, p.loc, p.log_scale)
