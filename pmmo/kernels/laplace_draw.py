"""A draw of one weight tensor with its loss terms, and their gradients, as one function."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from pmmo.kernels.laplace_blocks import (
    DRAW_SCRATCH,
    GRADIENT_SCRATCH,
    Factors,
    Norm,
    Wanted,
    compiled,
    draw_block,
    gradient_block,
)
from pmmo.kernels.random_streams import Streams, noise_source

if TYPE_CHECKING:
    from pmmo.kernels.laplace_weights import WeightPrior

ONE_DRAW = torch.Size()
# weights in a block, for each thread: buffers near the cache, and few calls for 31 million weights
DRAW_BLOCK, GRADIENT_BLOCK = 1 << 17, 1 << 18


@dataclass(frozen=True)
class Along:
    """What a draw evaluates in the same passes."""

    prior: "WeightPrior"
    closed_form: bool  # KL(q || p) rather than log p at the draw
    penalty: Norm | None = None
    defer: Callable[["WeightGradient"], None] | None = None  # takes the gradient, see there
    streams: Streams | None = None  # of cycles that are trained together
    compile: bool = False  # one kernel per pass (`laplace_blocks.compiled`)

    @property
    def cycles(self) -> torch.Size:
        """The leading axis, () or (C,)."""
        return self.prior.loc.shape

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.closed_form, self.prior.loc.requires_grad, self.penalty)


class Terms(NamedTuple):
    """Scalars of one draw; None for those that nobody asked for."""

    log_q: Tensor
    log_p: Tensor | None
    kl: Tensor | None
    penalty: Tensor | None


def split(
    *tensors: Tensor, block: int | None = None, along: Along | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' blocks side by side, (k,): GRADIENT_BLOCK or `block` weights for each thread.

    One block is everything on CUDA, for compiled passes and for several cycles, then (C, n).
    """
    cycles = ONE_DRAW if along is None else along.cycles
    views = [t.detach().view(*cycles, -1) for t in tensors]  # torch.compile looks at their base
    if cycles or (along and along.compile) or tensors[0].device.type != "cpu":
        return iter([tuple(views)])
    size = (block or GRADIENT_BLOCK) * torch.get_num_threads()
    return zip(*(v.split(size) for v in views), strict=True)


def buffers(like: Tensor, count: int, block: int, along: Along | None) -> Sequence[Tensor]:
    """Scratch for a block, `count` times (k,) or (C, n)."""
    first, *_ = next(split(like, block=block, along=along))
    return first.new_empty((count, *first.shape)).unbind()


def prepared(
    function: Callable, like: Tensor, count: int, block: int, along: Along | None
) -> Callable:
    """`draw_block` or `gradient_block` without its last argument, `count` blocks of scratch."""
    if along is not None and along.compile:
        return compiled(function)
    scratch = buffers(like, count, block, along)

    def run(first: Tensor, *others: object) -> object:
        short = len(first) < len(scratch[0])  # the last one
        return function(first, *others, [p[: len(first)] for p in scratch] if short else scratch)

    return run


def total(sums: list[Tensor], like: Tensor) -> Tensor:
    """Sum of the blocks' sums, in float64 so that the order of 31 million weights costs nothing."""
    return torch.stack(sums).sum(0, dtype=torch.float64).to(like.dtype)


def per_weight(values: Tensor) -> Tensor:
    """A scalar as it is, one value per cycle (C,) as (C, 1): to meet a block."""
    return values.unsqueeze(-1) if values.ndim else values


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
        theta = torch.empty_like(loc)
        fill = noise_source(loc, along and along.streams)
        (noise,) = buffers(loc, 1, DRAW_BLOCK, along)
        draw = prepared(draw_block, loc, DRAW_SCRATCH, DRAW_BLOCK, along)
        center = None if m is None else per_weight(m)
        wanted = along and along.wanted
        sums: dict[str, list[Tensor]] = {}
        for block in split(loc, log_scale, theta, block=DRAW_BLOCK, along=along):
            fill(u := noise[: len(block[0])])
            for name, values in draw(u, *block, center, wanted).items():
                sums.setdefault(name, []).extend(values)
        found = {name: total(values, loc) for name, values in sums.items()}
        weights = loc.numel() // found["noise"].numel()
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
        ctx.along, ctx.spread, ctx.pull = along, spread, found.get("pull")
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
        if ctx.pull is not None:  # the prior is learned
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

    def split(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Tensors in the shape of loc, cut as `blocks` cuts the gradient."""
        return split(*tensors, along=self.along)

    def dense(self) -> tuple[Tensor, Tensor]:
        """Gradients by loc and log_scale, in their shapes."""
        by_loc, by_log_scale = torch.empty_like(self.loc), torch.empty_like(self.loc)
        for whole, part in zip(self.split(by_loc, by_log_scale), self.blocks(), strict=True):
            for target, source in zip(whole, part, strict=True):
                target.copy_(source)
        return by_loc, by_log_scale

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Gradients by loc and log_scale, in the order of `split`; reused buffers."""
        block = prepared(gradient_block, self.loc, GRADIENT_SCRATCH, GRADIENT_BLOCK, self.along)
        outside = torch.zeros_like(self.theta) if self.by_theta is None else self.by_theta
        tensors = (self.loc, self.log_scale, self.theta, outside.contiguous())
        factors = self.factors()
        for parts in self.split(*tensors):
            yield block(*parts, factors)

    def factors(self) -> Factors:
        found: dict[str, Tensor] = {"minus_log_q": self.loc.new_zeros(())}
        if self.by_log_q is not None:
            found["minus_log_q"] = -self.by_log_q
        if self.along is not None:
            found["m"] = self.m
        if self.by_log_p is not None:
            found["toward_m"] = -self.by_log_p / self.log_s.exp()
        if self.by_kl is not None:
            found |= {"by_kl": self.by_kl, "per_scale": self.by_kl / self.log_s.exp()}
        if self.by_penalty is not None:
            found["per_power"] = self.by_penalty * self.along.penalty.power
        penalty = None if self.by_penalty is None else self.along.penalty
        return Factors(**{k: per_weight(v) for k, v in found.items()}, penalty=penalty)

    def by_prior(self, spread: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients by m and log s, from sums of the forward pass."""
        weights = self.loc.numel() // spread.numel()
        if self.by_kl is not None:
            return -self.by_kl * pull / self.log_s.exp(), self.by_kl * (weights - spread)
        if self.by_log_p is not None:
            by_m = self.by_log_p * pull / self.log_s.exp()
            return by_m, self.by_log_p * (spread - weights)
        return torch.zeros_like(self.m), torch.zeros_like(self.m)
