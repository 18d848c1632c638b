"""The arithmetic of one block of weights: a draw with its sums, and the gradient.

Values are (k,), or (C, n) for several cycles; values of a whole tensor are () or (C, 1). On a CPU
the functions run eagerly, in scratch that stays in the cache. `compiled` makes one kernel of each;
on CUDA `triton_laplace.py` has such kernels.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pmmo.core.errors import PmmoError

LOG2_E = math.log2(math.e)
DRAW_SCRATCH, GRADIENT_SCRATCH = 3, 4  # blocks

Scratch = Sequence[Tensor]


class Norm(NamedTuple):
    """sum |v|^power over the locations, and the scales b if `on_scale`."""

    power: int  # 1 or 2
    on_scale: bool


class Wanted(NamedTuple):
    """Which sums a draw takes."""

    closed_form: bool  # of KL(q || p) rather than of log p at the draw
    learned: bool  # of the gradient with respect to the prior's location
    penalty: Norm | None


class Factors(NamedTuple):
    """Scalars of the gradient with respect to loc and log_scale; None if there is no such term."""

    minus_log_q: Tensor  # -dLoss/dlog q
    m: Tensor | None = None
    toward_m: Tensor | None = None  # -dLoss/dlog p / s
    by_kl: Tensor | None = None  # dLoss/dKL
    per_scale: Tensor | None = None  # dLoss/dKL / s
    per_power: Tensor | None = None  # dLoss/dpenalty, times its power
    penalty: Norm | None = None


def draw_block(
    u: Tensor,
    loc: Tensor,
    log_scale: Tensor,
    theta: Tensor,
    m: Tensor | None,
    wanted: Wanted | None,
    scratch: Scratch,
) -> dict[str, list[Tensor]]:
    """Fill theta from u ~ U(-1, 1), which is lost; lists of sums over the weights, by name."""
    x, b, e = scratch
    log(torch.abs(u, out=x), out=x)  # -|eps|
    exp(log_scale, out=b)
    sums = {"noise": [x.sum(-1)], "log_b": [log_scale.sum(-1)]}
    torch.addcmul(loc, x.mul_(u.sign_()), b, out=theta)
    if wanted is None:
        return sums
    if wanted.closed_form:
        decay(loc, m, b, difference=u, a=x, e=e)
        sums["spread"] = [x.sum(-1), torch.mul(b, e, out=x).sum(-1)]
        if wanted.learned:
            u.sign_()
            sums["pull"] = [u.sum(-1) - torch.mul(u, e, out=x).sum(-1)]  # sum of sign (1 - e)
    else:
        torch.sub(theta, m, out=u)
        sums["spread"] = [torch.abs(u, out=x).sum(-1)]
        if wanted.learned:
            sums["pull"] = [u.sign_().sum(-1)]
    if wanted.penalty is not None:
        power, on_scale = wanted.penalty
        torch.abs(loc, out=x) if power == 1 else torch.square(loc, out=x)
        if on_scale:
            x.add_(b) if power == 1 else x.addcmul_(b, b)
        sums["penalty"] = [x.sum(-1)]
    return sums


def gradient_block(
    loc: Tensor,
    log_scale: Tensor,
    theta: Tensor,
    by_theta: Tensor,
    by_loc: Tensor,
    by_log_scale: Tensor,
    factors: Factors,
    scratch: Scratch,
) -> None:
    """Fill by_loc and by_log_scale, the gradients with respect to loc and log_scale."""
    g, h = by_loc, by_log_scale
    b, x, y, e = scratch
    m = factors.m
    if factors.toward_m is not None:
        torch.sub(theta, m, out=x).sign_()
        by_theta = torch.addcmul(by_theta, x, factors.toward_m, out=g)
    # along the draw d theta/d log_scale = theta - loc and log q moves with log_scale alone
    torch.addcmul(factors.minus_log_q, by_theta, torch.sub(theta, loc, out=x), out=h)
    if factors.by_kl is not None or factors.penalty is not None:
        exp(log_scale, out=b)
    if factors.by_kl is not None:
        decay(loc, m, b, difference=x, a=y, e=e)
        h.addcmul_(y.add_(b).mul_(e), factors.per_scale).sub_(factors.by_kl)  # (b + a) e/s - 1
        x.sign_().addcmul_(x, e, value=-1)  # sign (1 - e)
        by_theta = torch.addcmul(by_theta, x, factors.per_scale, out=g)
    if factors.penalty is not None:
        power, on_scale = factors.penalty
        slope = torch.sign(loc, out=x) if power == 1 else loc
        by_theta = torch.addcmul(by_theta, slope, factors.per_power, out=g)
        if on_scale:
            h.addcmul_(b if power == 1 else b.mul_(b), factors.per_power)
    if by_theta is not g:
        g.copy_(by_theta)


@cache
def compiled(block: Callable) -> Callable:
    """`draw_block` or `gradient_block` as one kernel, without the last argument, the scratch.

    PmmoError where torch cannot compile it.
    """
    from torch._dynamo.exc import TorchDynamoException  # here alone: it takes a second

    count = {draw_block: DRAW_SCRATCH, gradient_block: GRADIENT_SCRATCH}[block]

    def whole(first: Tensor, *others: object) -> object:
        scratch = [torch.empty_like(first) for _ in range(count)]  # never in memory
        # a draw uses up its first argument
        return block(first.clone() if block is draw_block else first, *others, scratch)

    kernel = torch.compile(whole, dynamic=True, fullgraph=True)

    def run(*args: object) -> object:
        try:
            return kernel(*args)
        except TorchDynamoException as error:
            raise PmmoError(
                f"compile is true, but torch.compile fails ({str(error).splitlines()[0]}); it "
                "needs a C++ compiler. Use compile: false"
            ) from error

    return run


def exp(x: Tensor, out: Tensor, sign: int = 1) -> Tensor:
    """e^(sign x): on a CPU torch's exp2 takes a third of the time of its exp; 3e-7 relative."""
    return torch.exp2(torch.mul(x, sign * LOG2_E, out=out), out=out)


def log(x: Tensor, out: Tensor) -> Tensor:
    """ln x; on a CPU by numpy, whose vector code takes a third of the time of torch's."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.log(x, out=out)
    np.log(x.numpy(), out=out.numpy())
    return out


def decay(loc: Tensor, m: Tensor, b: Tensor, *, difference: Tensor, a: Tensor, e: Tensor) -> None:
    """Fill difference = loc - m, a = |loc - m| and e = exp(-a/b)."""
    torch.sub(loc, m, out=difference)
    torch.abs(difference, out=a)
    exp(torch.div(a, b, out=e), out=e, sign=-1)
