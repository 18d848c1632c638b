"""The passes over random weights as two Triton kernels, for float32 on a CUDA card.

`draw` reads location and log-scale and writes the weight, with all its sums: 12 bytes per weight.
`update` makes the gradient from the draw and either stores it (24 bytes) or clips it and applies
Adam to parameters and moments in place (56 bytes). The formulas are those of `laplace_blocks.py`
and `clipped_adam.py`, which the tests compare with. C cycles of n weights each; C is 1 for a cycle
that is trained alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmmo.kernels.laplace_blocks import Factors, Wanted

SUMS = ("noise", "log_b", "spread", "pull", "penalty")
GROUPS = 512  # of four weights each, in a program of `draw`: one call of Philox fills a group
WEIGHTS = 1024  # in a program of `update`


@triton.jit
def _exp(x):
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def _sign(x):
    return (x > 0).to(tl.float32) - (x < 0).to(tl.float32)


@triton.jit
def from_bits(words):
    """32 random bits as u in [-1, 1]: odd multiples of 2^-31, so never 0."""
    return (words.to(tl.int32, bitcast=True) | 1).to(tl.float32) * 4.656612873077393e-10


@triton.jit
def _uniform(seed, group, GROUPS: tl.constexpr):
    """u ~ U(-1, 1), four for each group."""
    w0, w1, w2, w3 = tl.randint4x(seed, group)
    return from_bits(tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(4 * GROUPS))


@triton.jit
def _draw(
    loc,
    log_scale,
    theta,
    m,
    seeds,
    sums,  # (5, C, programs of a cycle)
    n,
    along: tl.constexpr,
    closed_form: tl.constexpr,
    power: tl.constexpr,
    on_scale: tl.constexpr,
    GROUPS: tl.constexpr,
):
    part, cycle = tl.program_id(0), tl.program_id(1)
    u = _uniform(tl.load(seeds + cycle), part * GROUPS + tl.arange(0, GROUPS), GROUPS)
    i = part * 4 * GROUPS + tl.arange(0, 4 * GROUPS)
    inside = i < n
    at = cycle.to(tl.int64) * n + i
    mean = tl.load(loc + at, inside, other=0.0)
    log_b = tl.load(log_scale + at, inside, other=0.0)
    b = _exp(log_b)
    minus_eps = tl.log(tl.abs(u))  # -|eps|
    drawn = mean + minus_eps * _sign(u) * b
    tl.store(theta + at, drawn, inside)
    out = sums + cycle * tl.num_programs(0) + part
    each = tl.num_programs(0) * tl.num_programs(1)
    tl.store(out, tl.sum(tl.where(inside, minus_eps, 0.0)))
    tl.store(out + each, tl.sum(log_b))
    zero = tl.zeros_like(mean)
    spread, pull, norm = zero, zero, zero
    if along:
        center = tl.load(m + cycle)
        if closed_form:
            d = mean - center
            e = _exp(-tl.abs(d) / b)
            spread, pull = tl.abs(d) + b * e, _sign(d) * (1 - e)
        else:
            d = drawn - center
            spread, pull = tl.abs(d), _sign(d)
        if power == 1:
            norm = tl.abs(mean) + b if on_scale else tl.abs(mean)
        if power == 2:
            norm = mean * mean + b * b if on_scale else mean * mean
    tl.store(out + 2 * each, tl.sum(tl.where(inside, spread, 0.0)))
    tl.store(out + 3 * each, tl.sum(tl.where(inside, pull, 0.0)))
    tl.store(out + 4 * each, tl.sum(tl.where(inside, norm, 0.0)))


def draw(
    loc: Tensor,
    log_scale: Tensor,
    theta: Tensor,
    m: Tensor | None,
    wanted: Wanted | None,
    seeds: Tensor,
    cycles: torch.Size,
) -> dict[str, Tensor]:
    """Fill theta; sums over the weights of a cycle by name, () or (C,) as `cycles` is.

    The random numbers of a cycle are those of Philox with its seed, `seeds` (C,) int64.
    """
    count = len(seeds)
    n = loc.numel() // count
    programs = triton.cdiv(n, 4 * GROUPS)
    sums = loc.new_empty(len(SUMS), count, programs)
    penalty = wanted and wanted.penalty
    _draw[(programs, count)](
        loc,
        log_scale,
        theta,
        loc if m is None else m,
        seeds,
        sums,
        n,
        along=wanted is not None,
        closed_form=wanted is not None and wanted.closed_form,
        power=penalty.power if penalty else 0,
        on_scale=bool(penalty and penalty.on_scale),
        GROUPS=GROUPS,
    )
    totals = sums.sum(-1, dtype=torch.float64).to(loc.dtype).view(len(SUMS), *cycles)
    found = dict(zip(SUMS, totals, strict=True))
    if wanted is None or not wanted.learned:
        del found["pull"]
    if not penalty:
        del found["penalty"]
    return found


@triton.jit
def _adam(value, g, at, i, inside, first_at, second_at, clip, rate1, rate2, eps, step_size):
    """One step of Pyro's ClippedAdam on a parameter `value` and its moments; rates: 1 - beta."""
    g = tl.minimum(tl.maximum(g, -clip), clip)
    first = tl.load(first_at + i, inside)
    second = tl.load(second_at + i, inside)
    first += rate1 * (g - first)
    second += rate2 * (g * g - second)
    tl.store(first_at + i, first, inside)
    tl.store(second_at + i, second, inside)
    tl.store(at + i, value - step_size * first / (tl.sqrt(second) + eps), inside)


@triton.jit
def _update(
    loc,
    log_scale,
    theta,
    by_theta,
    scalars,  # (6, C)
    out0,  # with `apply` the moments of loc, else its gradient
    out1,
    out2,  # with `apply` the moments of log_scale, else its gradient
    out3,
    n,
    clip,
    rate1,
    rate2,
    eps,
    step_size,
    closed_form: tl.constexpr,
    power: tl.constexpr,
    on_scale: tl.constexpr,
    apply: tl.constexpr,
    WEIGHTS: tl.constexpr,
):
    cycle, cycles = tl.program_id(1), tl.num_programs(1)
    minus_log_q = tl.load(scalars + cycle)
    m = tl.load(scalars + cycles + cycle)
    toward_m = tl.load(scalars + 2 * cycles + cycle)
    by_kl = tl.load(scalars + 3 * cycles + cycle)
    per_scale = tl.load(scalars + 4 * cycles + cycle)
    per_power = tl.load(scalars + 5 * cycles + cycle)
    i = tl.program_id(0) * WEIGHTS + tl.arange(0, WEIGHTS)
    inside = i < n
    i = cycle.to(tl.int64) * n + i
    mean, log_b = tl.load(loc + i, inside), tl.load(log_scale + i, inside)
    drawn = tl.load(theta + i, inside)
    b = _exp(log_b)
    g = tl.load(by_theta + i, inside) + _sign(drawn - m) * toward_m
    h = minus_log_q + g * (drawn - mean)
    if closed_form:
        d = mean - m
        e = _exp(-tl.abs(d) / b)
        h += (b + tl.abs(d)) * e * per_scale - by_kl
        g += _sign(d) * (1 - e) * per_scale
    if power == 1:
        g += _sign(mean) * per_power
        if on_scale:
            h += b * per_power
    if power == 2:
        g += mean * per_power
        if on_scale:
            h += b * b * per_power
    if apply:
        _adam(mean, g, loc, i, inside, out0, out1, clip, rate1, rate2, eps, step_size)
        _adam(log_b, h, log_scale, i, inside, out2, out3, clip, rate1, rate2, eps, step_size)
    else:
        tl.store(out0 + i, g, inside)
        tl.store(out2 + i, h, inside)


class WeightGradient(NamedTuple):
    """The gradient of a posterior's loc and log_scale, not yet made."""

    loc: Tensor
    log_scale: Tensor
    theta: Tensor
    by_theta: Tensor
    factors: Factors

    def dense(self) -> tuple[Tensor, Tensor]:
        """As tensors: with respect to loc and log_scale."""
        by_loc, by_log_scale = torch.empty_like(self.loc), torch.empty_like(self.loc)
        self._run((by_loc, by_loc, by_log_scale, by_log_scale), (0.0,) * 5, apply=False)
        return by_loc, by_log_scale

    def apply(
        self,
        moments: Sequence[Tensor],
        clip: float,
        betas: tuple[float, float],
        eps: float,
        step_size: float,
    ) -> None:
        """A step of ClippedAdam on loc and log_scale, whose moments are two each."""
        rates = [1 - beta for beta in betas]  # in float64: 1 - 0.999 is 3e-5 off in float32
        self._run(moments, (clip, *rates, eps, step_size), apply=True)

    def _run(self, outs: Sequence[Tensor], numbers: Sequence[float], apply: bool) -> None:
        *values, penalty = self.factors
        cycles = max(v.numel() for v in values if v is not None)
        nothing = self.loc.new_zeros(cycles)
        scalars = [nothing if v is None else v.reshape(-1).expand(cycles) for v in values]
        n = self.loc.numel() // cycles
        _update[(triton.cdiv(n, WEIGHTS), cycles)](
            self.loc,
            self.log_scale,
            self.theta,
            self.by_theta,
            torch.stack(scalars),  # (6, C)
            *outs,
            n,
            *numbers,
            closed_form=self.factors.by_kl is not None,
            power=penalty.power if penalty else 0,
            on_scale=bool(penalty and penalty.on_scale),
            apply=apply,
            WEIGHTS=WEIGHTS,
        )
