"""Pyro's ClippedAdam in one pass over the memory, by torch's fused Adam kernel."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pmmo.kernels.laplace_draw import WeightGradient, split


class ClippedAdam:
    """The updates of `pyro.optim.ClippedAdam`: gradients clipped element-wise, then Adam.

    A parameter's gradient is its `grad`, or comes block by block from a `WeightGradient` in
    `deferred`, a list that the backward pass fills and `step` empties. Every block is clipped and
    applied while it is in the cache.

    Pyro adds eps to sqrt(v), torch to sqrt(v) corrected for bias; scaling eps by that correction
    makes the updates the same. That correction is one for all parameters, so their gradients must
    come together: ValueError otherwise.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        clip_norm: float = 10.0,
        deferred: list[WeightGradient] | None = None,
    ) -> None:
        self.params = list(params)
        self.lr, self.clip_norm = lr, clip_norm  # departure D19
        self.betas, self.eps = (0.9, 0.999), 1e-8
        self.deferred = [] if deferred is None else deferred
        self.moments: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}
        self.steps = 0  # and once more on the device, for torch's kernel

    def zero_grad(self) -> None:
        self.deferred.clear()
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        with_gradient = [p for p in self.params if p.grad is not None]
        with_gradient += [p for g in self.deferred for p in (g.loc, g.log_scale)]
        if not with_gradient:
            return
        if len(set(with_gradient)) < len(with_gradient):
            raise ValueError("a parameter has a gradient twice: step after each backward pass")
        without = len(self.params) - len(with_gradient)
        if without:
            raise ValueError(f"{without} of {len(self.params)} parameters have no gradient")
        if not self.moments:  # at the first step: the parameters are on their device by now
            self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in self.params}
            self.count = torch.zeros((), device=self.params[0].device)
        self.steps += 1
        self.count += 1
        eps = self.eps / math.sqrt(1 - self.betas[1] ** self.steps)
        for params, first, second, grads in self.blocks():
            for grad in grads:
                grad.clamp_(-self.clip_norm, self.clip_norm)
            torch._fused_adam_(
                params,
                grads,
                first,
                second,
                [],
                [self.count] * len(params),
                lr=self.lr,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=0.0,
                eps=eps,
                amsgrad=False,
                maximize=False,
            )
        self.deferred.clear()

    def blocks(self) -> Iterator[tuple[list[Tensor], ...]]:
        """Blocks of parameters, their two moments and their gradients.

        The deferred come first: they read the prior, which may be among the other parameters.
        """
        for gradient in self.deferred:
            pair = (gradient.loc, gradient.log_scale)
            moments = [moment for p in pair for moment in self.moments[p]]
            sides = gradient.split(*(p.data for p in pair), *moments)
            for (p, q, p1, p2, q1, q2), grads in zip(sides, gradient.blocks(), strict=True):
                yield [p, q], [p1, q1], [p2, q2], list(grads)
        for p in self.params:
            if p.grad is not None:
                for block in split(p.data, *self.moments[p], p.grad.contiguous()):
                    yield tuple([part] for part in block)
