"""One draw of a weight tensor with its loss terms: one pass over memory forward, one backward.

With n weights, eps ~ Laplace(0, 1), b = exp(log_scale), s = exp(log_s), a = |loc - m| and
e = exp(-a/b):

    theta = loc + b eps
    log q(theta) = -sum |eps| - sum log b - n log 2            depends on eps and b alone
    log p(theta) = -sum |theta - m|/s - n (log s + log 2)
    KL(q || p)   = sum (a + b e)/s - sum log b + n (log s - 1)

Cycles that are trained together have a leading axis: loc and log_scale are (C, ...), m and log_s
(C,), and each term is (C,) instead of a scalar.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from pmmo.core.errors import PmmoError
from pmmo.kernels.clipped_adam import defer
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
from pmmo.kernels.random_streams import Streams, draw_seeds, noise_source

# weights in a block, for each thread: buffers near the cache, and few calls for 31 million weights
DRAW_BLOCK, GRADIENT_BLOCK = 1 << 17, 1 << 18


@dataclass(frozen=True)
class Along:
    """What the pass of a draw evaluates beside theta and log q."""

    closed_form: bool  # KL(q || p) rather than log p at the draw
    penalty: Norm | None = None
    compile: bool = False  # one kernel per pass: Triton's on CUDA, else `laplace_blocks.compiled`


class Draw(NamedTuple):
    """A weight tensor and its terms, () or (C,); None if not requested."""

    theta: Tensor
    log_q: Tensor
    log_p: Tensor | None
    kl: Tensor | None
    penalty: Tensor | None


def draw(
    loc: Tensor,
    log_scale: Tensor,
    prior: tuple[Tensor, Tensor] | None = None,
    along: Along | None = None,
    streams: Streams | None = None,
) -> Draw:
    """Draw theta from Laplace(loc, exp(log_scale)); `along` needs the prior (m, log s)."""
    m, log_s = prior or (None, None)
    return Draw(*_Draw.apply(loc, log_scale, m, log_s, along, streams))


class _Draw(Function):
    @staticmethod
    def forward(
        ctx,
        loc: Tensor,
        log_scale: Tensor,
        m: Tensor | None,
        log_s: Tensor | None,
        along: Along | None,
        streams: Streams | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        passes = Passes(loc.device, loc.shape[:0] if m is None else m.shape, along)
        theta = torch.empty_like(loc)
        wanted = along and Wanted(along.closed_form, m.requires_grad, along.penalty)
        if in_triton(loc, along):
            seeds = draw_seeds(loc, streams)
            found = triton_kernels().draw(loc, log_scale, theta, m, wanted, seeds, passes.cycles)
        else:
            found = passes.draw(loc, log_scale, theta, m, wanted, noise_source(loc, streams))
        n = loc.numel() // found["noise"].numel()
        log_q = found["noise"] - found["log_b"] - n * math.log(2)
        log_p = kl = spread = None
        if along is not None:
            s = log_s.exp()
            spread = found["spread"] / s
            if along.closed_form:
                kl = spread - found["log_b"] + n * (log_s - 1)
            else:
                log_p = -spread - n * (log_s + math.log(2))
        ctx.passes, ctx.along, ctx.spread, ctx.pull = passes, along, spread, found.get("pull")
        ctx.save_for_backward(loc, log_scale, m, log_s, theta)
        return theta, log_q, log_p, kl, found.get("penalty")

    @staticmethod
    def backward(
        ctx,
        by_theta: Tensor | None,
        by_log_q: Tensor | None,
        by_log_p: Tensor | None,
        by_kl: Tensor | None,
        by_penalty: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        loc, log_scale, m, log_s, theta = ctx.saved_tensors
        found: dict[str, Tensor] = {
            "minus_log_q": loc.new_zeros(()) if by_log_q is None else -by_log_q
        }
        penalty = None
        if by_log_p is not None:
            found |= {"m": m, "toward_m": -by_log_p / log_s.exp()}
        if by_kl is not None:
            found |= {"m": m, "by_kl": by_kl, "per_scale": by_kl / log_s.exp()}
        if by_penalty is not None:
            penalty = ctx.along.penalty
            found["per_power"] = by_penalty * penalty.power
        factors = Factors(**{k: per_weight(v) for k, v in found.items()}, penalty=penalty)
        outside = torch.zeros_like(theta) if by_theta is None else by_theta.contiguous()
        if in_triton(loc, ctx.along):
            gradient = triton_kernels().WeightGradient(loc, log_scale, theta, outside, factors)
            by_loc, by_log_scale = (None, None) if defer(gradient) else gradient.dense()
        else:
            by_loc, by_log_scale = ctx.passes.gradient(loc, log_scale, theta, outside, factors)
        by_m = by_log_s = None
        if ctx.pull is not None:  # the prior is learned
            by_m, by_log_s = torch.zeros_like(m), torch.zeros_like(m)
            n = loc.numel() // m.numel()
            if by_kl is not None:
                by_m = -by_kl * ctx.pull / log_s.exp()
                by_log_s = by_kl * (n - ctx.spread)
            elif by_log_p is not None:
                by_m = by_log_p * ctx.pull / log_s.exp()
                by_log_s = by_log_p * (ctx.spread - n)
        return by_loc, by_log_scale, by_m, by_log_s, None, None


def in_triton(loc: Tensor, along: Along | None) -> bool:
    """Whether the passes over this tensor are Triton's kernels: `compile` on CUDA."""
    compile = along is not None and along.compile
    return compile and loc.device.type == "cuda" and loc.dtype == torch.float32


@cache
def triton_kernels() -> ModuleType:
    """`triton_laplace`; PmmoError where Triton is missing."""
    try:
        from pmmo.kernels import triton_laplace
    except ImportError as error:
        raise PmmoError(
            f"compile is true, but Triton cannot be imported ({error}); it comes with the CUDA "
            "builds of torch for Linux. Use compile: false"
        ) from error
    return triton_laplace


@dataclass(frozen=True)
class Passes:
    """How the passes over a weight tensor are cut: in blocks on a CPU, whole elsewhere."""

    device: torch.device
    cycles: torch.Size  # the leading axis, () or (C,)
    along: Along | None

    def draw(
        self,
        loc: Tensor,
        log_scale: Tensor,
        theta: Tensor,
        m: Tensor | None,
        wanted: Wanted | None,
        fill: Callable[[Tensor], object],
    ) -> dict[str, Tensor]:
        """Fill theta by `fill`'s noise; the sums over the weights, () or (C,), by name."""
        (noise,) = self.buffers(loc, 1, DRAW_BLOCK)
        run = self.prepared(draw_block, loc, DRAW_SCRATCH, DRAW_BLOCK)
        center = None if m is None else per_weight(m)
        sums: dict[str, list[Tensor]] = {}
        for block in self.split(DRAW_BLOCK, loc, log_scale, theta):
            fill(u := noise[: len(block[0])])
            for name, values in run(u, *block, center, wanted).items():
                sums.setdefault(name, []).extend(values)
        return {name: total(values, loc) for name, values in sums.items()}

    def gradient(
        self, loc: Tensor, log_scale: Tensor, theta: Tensor, by_theta: Tensor, factors: Factors
    ) -> tuple[Tensor, Tensor]:
        """With respect to loc and log_scale."""
        by_loc, by_log_scale = torch.empty_like(loc), torch.empty_like(loc)
        run = self.prepared(gradient_block, loc, GRADIENT_SCRATCH, GRADIENT_BLOCK)
        tensors = (loc, log_scale, theta, by_theta, by_loc, by_log_scale)
        for block in self.split(GRADIENT_BLOCK, *tensors):
            run(*block, factors)
        return by_loc, by_log_scale

    def split(self, block: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Blocks of the tensors side by side, (k,) with `block` weights for each thread.

        There is one block on CUDA, for compiled passes, and for several cycles, then (C, n).
        """
        views = [t.detach().view(*self.cycles, -1) for t in tensors]
        if self.cycles or (self.along and self.along.compile) or self.device.type != "cpu":
            return iter([tuple(views)])
        return zip(*(v.split(block * torch.get_num_threads()) for v in views), strict=True)

    def buffers(self, like: Tensor, count: int, block: int) -> Sequence[Tensor]:
        """`count` scratch tensors of the shape of a block."""
        first, *_ = next(self.split(block, like))
        return first.new_empty((count, *first.shape)).unbind()

    def prepared(self, function: Callable, like: Tensor, count: int, block: int) -> Callable:
        """`draw_block` or `gradient_block` without the last argument, `count` scratch blocks."""
        if self.along is not None and self.along.compile:
            return compiled(function)
        scratch = self.buffers(like, count, block)

        def run(first: Tensor, *others: object) -> object:
            short = len(first) < len(scratch[0])  # the last block
            own = [s[: len(first)] for s in scratch] if short else scratch
            return function(first, *others, own)

        return run


def total(sums: list[Tensor], like: Tensor) -> Tensor:
    """Sum of the blocks' sums, in float64 so that the order of 31 million weights costs nothing."""
    return torch.stack(sums).sum(0, dtype=torch.float64).to(like.dtype)


def per_weight(values: Tensor) -> Tensor:
    """A scalar as it is, values per cycle (C,) as (C, 1), to broadcast over a block."""
    return values.unsqueeze(-1) if values.ndim else values
