"""Laplace distributions over whole weight tensors, evaluated in few passes over memory.

`WeightPosterior` and `WeightPrior` are Pyro distributions equal to `Laplace(...).to_event()`, term
by term and gradient by gradient (the tests hold them against it). What makes them fast: a draw
evaluates every term of the objective that its weights have (`Along`), and their gradient, in
blocks that stay in the cache. With n weights, eps ~ Laplace(0, 1), a = |loc - m|, e = exp(-a/b):

    theta = loc + b eps
    log q(theta) = -sum |eps| - sum log b - n log 2            depends on eps and b alone
    log p(theta) = -sum |theta - m|/s - n (log s + log 2)
    KL(q || p)   = sum (a + b e)/s - sum log b + n (log s - 1)
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.autograd import Function
from torch.distributions import constraints, register_kl

ONE_DRAW = torch.Size()
BLOCK = 1 << 17  # weights: buffers near the cache, and few calls for 31 million weights
LOG2_E = math.log2(math.e)


class Norm(NamedTuple):
    """sum |v|^power over the locations, and the scales b if `on_scale`."""

    power: int  # 1 or 2
    on_scale: bool


@dataclass(frozen=True)
class Along:
    """What a draw evaluates in the same passes."""

    prior: "WeightPrior"
    closed_form: bool  # KL(q || p) rather than log p at the draw
    penalty: Norm | None = None
    defer: Callable[["WeightGradient"], None] | None = None  # takes the gradient, see there


class Terms(NamedTuple):
    """Scalars of one draw; None for those that nobody asked for."""

    log_q: Tensor
    log_p: Tensor | None
    kl: Tensor | None
    penalty: Tensor | None


def split(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' blocks side by side; on CUDA one block is everything."""
    size = BLOCK if tensors[0].device.type == "cpu" else max(1, tensors[0].numel())
    return zip(*(t.view(-1).split(size) for t in tensors), strict=True)


def buffers(like: Tensor, count: int) -> list[Tensor]:
    """Scratch for one block each, (k,) with k weights at most."""
    size = min(BLOCK, like.numel()) if like.device.type == "cpu" else like.numel()
    return list(torch.empty((count, size), dtype=like.dtype, device=like.device))


def total(sums: list[Tensor], like: Tensor) -> Tensor:
    """Sum of the blocks' sums, in float64 so that the order of 31 million weights costs nothing."""
    return torch.stack(sums).sum(dtype=torch.float64).to(like.dtype)


def exp(x: Tensor, out: Tensor) -> Tensor:
    """e^x: torch's exp2 takes a third of the time of its exp on a CPU; 3e-7 relative in float32."""
    return torch.exp2(torch.mul(x, LOG2_E, out=out), out=out)


def log(x: Tensor, out: Tensor) -> Tensor:
    """ln x; on a CPU by numpy, whose vector code takes a third of the time of torch's."""
    if x.device.type != "cpu":
        return torch.log(x, out=out)
    np.log(x.numpy(), out=out.numpy())
    return out


def uniform_source(like: Tensor) -> Callable[[Tensor], Tensor]:
    """Fills blocks with u ~ U(-1, 1), never 0; seeded by torch's generator of the device.

    On a CPU torch draws 1.9 ns per number; numpy's SFC64 and the conversion below take 1.0 ns.
    """
    if like.device.type != "cpu":
        tiny = torch.finfo(torch.float32).tiny
        return lambda u: u.uniform_(-1, 1).masked_fill_(u == 0, tiny)
    bits = np.random.SFC64(int(torch.randint(2**63 - 1, ())))

    def fill(u: Tensor) -> Tensor:
        words = bits.random_raw((u.numel() + 1) // 2).view(np.int32)[: u.numel()]
        odd = torch.from_numpy(words).bitwise_or_(1)
        return u.copy_(odd).mul_(2.0**-31)

    return fill


class _Draw(Function):
    """(loc, log_scale, m, log s) -> theta and its `Terms`; m and s may be None, as may `along`."""

    @staticmethod
    def forward(
        ctx,
        loc: Tensor,
        log_scale: Tensor,
        m: Tensor | None,
        log_s: Tensor | None,
        along: Along | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        learned = m is not None and m.requires_grad
        theta = torch.empty_like(loc)
        fill = uniform_source(loc)
        sums: dict[str, list[Tensor]] = {}

        def add(name: str, value: Tensor) -> None:
            sums.setdefault(name, []).append(value)

        scratch = buffers(loc, 4)
        for loc_, log_scale_, theta_ in split(loc, log_scale, theta):
            u, x, b, e = (buffer[: len(loc_)] for buffer in scratch)
            fill(u)
            log(torch.abs(u, out=x), out=x)  # -|eps|
            exp(log_scale_, out=b)
            add("noise", x.sum())
            add("log_b", log_scale_.sum())
            torch.addcmul(loc_, x.mul_(u.sign_()), b, out=theta_)
            if along is None:
                continue
            if along.closed_form:
                decay(loc_, m, b, difference=u, a=x, e=e)
                add("spread", x.sum())
                add("spread", torch.mul(b, e, out=x).sum())
                if learned:
                    u.sign_()
                    add("pull", u.sum() - torch.mul(u, e, out=x).sum())  # sum of sign (1 - e)
            else:
                torch.sub(theta_, m, out=u)
                add("spread", torch.abs(u, out=x).sum())
                if learned:
                    add("pull", u.sign_().sum())
            if along.penalty is not None:
                add("penalty", powers(loc_, along.penalty.power, x))
                if along.penalty.on_scale:
                    add("penalty", powers(b, along.penalty.power, x))
        found = {name: total(values, loc) for name, values in sums.items()}
        weights = loc.numel()
        log_q = found["noise"] - found["log_b"] - weights * math.log(2)
        log_p = kl = penalty = spread = None
        if along is not None:
            s = log_s.exp()
            spread = found["spread"] / s
            if along.closed_form:
                kl = spread - found["log_b"] + weights * (log_s - 1)
            else:
                log_p = -spread - weights * (log_s + math.log(2))
            if along.penalty is not None:
                penalty = found["penalty"]
        ctx.along, ctx.learned, ctx.spread, ctx.pull = along, learned, spread, found.get("pull")
        ctx.save_for_backward(loc, log_scale, m, log_s, theta)
        return theta, log_q, log_p, kl, penalty

    @staticmethod
    def backward(
        ctx,
        by_theta: Tensor | None,
        by_log_q: Tensor | None,
        by_log_p: Tensor | None,
        by_kl: Tensor | None,
        by_penalty: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        gradient = WeightGradient(
            *ctx.saved_tensors, ctx.along, by_theta, by_log_q, by_log_p, by_kl, by_penalty
        )
        by_m = by_log_s = None
        if ctx.learned:
            by_m, by_log_s = gradient.by_prior(ctx.spread, ctx.pull)
        if ctx.along is not None and ctx.along.defer is not None:
            ctx.along.defer(gradient)
            return None, None, by_m, by_log_s, None
        return *gradient.dense(), by_m, by_log_s, None


@dataclass(frozen=True)
class WeightGradient:
    """The gradient of a loss by one draw's loc and log_scale, computed when it is asked for.

    As full tensors (`dense`), or block by block (`blocks`), so that an optimiser can clip and
    apply a block while it is in the cache and no full gradient is ever written.
    """

    loc: Tensor
    log_scale: Tensor
    m: Tensor | None
    log_s: Tensor | None
    theta: Tensor
    along: Along | None
    # the loss's gradient by theta as the network uses it, and by the draw's terms
    by_theta: Tensor | None
    by_log_q: Tensor | None
    by_log_p: Tensor | None
    by_kl: Tensor | None
    by_penalty: Tensor | None

    def dense(self) -> tuple[Tensor, Tensor]:
        """Gradients by loc and log_scale, in their shapes."""
        by_loc, by_log_scale = torch.empty_like(self.loc), torch.empty_like(self.loc)
        for whole, part in zip(split(by_loc, by_log_scale), self.blocks(), strict=True):
            for target, source in zip(whole, part, strict=True):
                target.copy_(source)
        return by_loc, by_log_scale

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Gradients by loc and log_scale, (k,) each, in the order of `split`; reused buffers."""
        zero = self.loc.new_zeros(())
        minus_log_q = zero if self.by_log_q is None else -self.by_log_q
        if self.by_log_p is not None:
            toward_m = -self.by_log_p / self.log_s.exp()
        if self.by_kl is not None:
            per_scale = self.by_kl / self.log_s.exp()
        if self.by_penalty is not None:
            per_power = self.by_penalty * self.along.penalty.power
        outside = torch.zeros_like(self.theta) if self.by_theta is None else self.by_theta
        scratch = buffers(self.loc, 6)
        tensors = (self.loc, self.log_scale, self.theta, outside.contiguous())
        for loc, log_scale, theta, by_theta in split(*tensors):
            g, h, b, x, y, e = (buffer[: len(loc)] for buffer in scratch)
            if self.by_log_p is not None:
                torch.sub(theta, self.m, out=x).sign_()
                by_theta = torch.addcmul(by_theta, x, toward_m, out=g)
            # along the draw d theta/d log_scale = theta - loc and log q moves with log_scale alone
            torch.addcmul(minus_log_q, by_theta, torch.sub(theta, loc, out=x), out=h)
            if self.by_kl is not None or self.by_penalty is not None:
                exp(log_scale, out=b)
            if self.by_kl is not None:
                decay(loc, self.m, b, difference=x, a=y, e=e)
                h.addcmul_(y.add_(b).mul_(e), per_scale).sub_(self.by_kl)  # (b + a) e/s - 1
                x.sign_().mul_(e.neg_().add_(1))
                by_theta = torch.addcmul(by_theta, x, per_scale, out=g)  # sign (1 - e)/s
            if self.by_penalty is not None:
                power, on_scale = self.along.penalty
                slope = torch.sign(loc, out=x) if power == 1 else loc
                by_theta = torch.addcmul(by_theta, slope, per_power, out=g)
                if on_scale:
                    h.addcmul_(b if power == 1 else b.mul_(b), per_power)  # by the log-scale
            yield by_theta if by_theta is g else g.copy_(by_theta), h

    def by_prior(self, spread: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients by m and log s, from sums of the forward pass."""
        if self.by_kl is not None:
            return -self.by_kl * pull / self.log_s.exp(), self.by_kl * (self.loc.numel() - spread)
        if self.by_log_p is not None:
            by_m = self.by_log_p * pull / self.log_s.exp()
            return by_m, self.by_log_p * (spread - self.loc.numel())
        return torch.zeros_like(self.m), torch.zeros_like(self.m)


def decay(loc: Tensor, m: Tensor, b: Tensor, *, difference: Tensor, a: Tensor, e: Tensor) -> None:
    """Fill difference = loc - m, a = |loc - m| and e = exp(-a/b) of one block."""
    torch.sub(loc, m, out=difference)
    torch.abs(difference, out=a)
    exp(torch.div(a, b, out=e).neg_(), out=e)


def powers(values: Tensor, power: int, scratch: Tensor) -> Tensor:
    """Sum of |v| or v^2 of one block."""
    return (
        torch.abs(values, out=scratch) if power == 1 else torch.square(values, out=scratch)
    ).sum()


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
        loc, log_scale = (v.expand(shape).contiguous() for v in (self.loc, self.log_scale))
        return WeightPosterior(loc, log_scale).rsample()

    def log_prob(self, value: Tensor) -> Tensor:
        distance = (value - self.loc).abs().sum() * torch.exp(-self.log_scale)
        return -distance - value.numel() * (self.log_scale + math.log(2))


class WeightPosterior(TorchDistribution):
    """Laplace(loc, exp(log_scale)) of one weight tensor; the tensor is one event."""

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
        return -(distance + self.log_scale + math.log(2)).sum()

    def log_p(self, value: Tensor, prior: "WeightPrior") -> Tensor:
        """The prior's log p of a value: from the draw's own pass where it evaluated that."""
        drawn = value is self.drawn and self.knows(prior) and self.terms.log_p is not None
        return self.terms.log_p if drawn else prior.log_prob(value)

    def norm(self, penalty: Norm) -> Tensor:
        """`penalty` of this posterior's parameters."""
        if self.terms is not None and self.along and self.along.penalty == penalty:
            return self.terms.penalty
        values = (self.loc, self.log_scale.exp()) if penalty.on_scale else (self.loc,)
        return sum(v.abs().pow(penalty.power).sum() for v in values)

    def knows(self, prior: "WeightPrior") -> bool:
        """Whether the last draw evaluated terms of this prior."""
        known = self.along.prior if self.along and self.terms else None
        return known is not None and known.loc is prior.loc and known.log_scale is prior.log_scale


@register_kl(WeightPosterior, WeightPrior)
def _kl_posterior_prior(q: WeightPosterior, p: WeightPrior) -> Tensor:
    if q.knows(p) and q.terms.kl is not None:
        return q.terms.kl
    a, b, s = (q.loc - p.loc).abs(), q.log_scale.exp(), p.log_scale.exp()
    return ((a + b * torch.exp(-a / b)) / s - q.log_scale + p.log_scale - 1).sum()
