"""Pyro's ClippedAdam by torch's fused Adam, in one pass over the parameters."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_


class ClippedAdam(torch.optim.Adam):
    """The updates of `pyro.optim.ClippedAdam`: gradients clipped element by element, then Adam.

    Pyro adds eps to sqrt(v), torch to sqrt(v) corrected for bias. Scaling eps by that correction
    makes the updates equal. The correction is the same for all parameters, so all or none of them
    must have a gradient: ValueError otherwise. On a GPU some have a `deferred` one instead.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, clip_norm: float = 10.0) -> None:
        super().__init__(params, lr=lr, eps=1e-8, fused=True)
        (group,) = self.param_groups
        group |= {"clip_norm": clip_norm, "steps": 0}  # departure D19

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for p in self.param_groups[0]["params"]:
            p.deferred = None  # the place that `defer` fills

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        params = group["params"]
        deferred = [d for p in params if (d := getattr(p, "deferred", None)) is not None]
        pairs = [pair for d in deferred for pair in (d.loc, d.log_scale)]
        have = [id(p) for p in (*pairs, *(p for p in params if p.grad is not None))]
        if not have:
            return
        if len(have) != len(set(have)):
            raise ValueError("a parameter has both a deferred gradient and another")
        if without := len(params) - len(have):
            raise ValueError(f"{without} of {len(params)} parameters have no gradient")
        clip_grad_value_(params, group["clip_norm"])
        group["steps"] += 1
        first, second = (1 - beta ** group["steps"] for beta in group["betas"])
        eps = self.defaults["eps"]
        for d in deferred:  # before the others, which include the prior that it reads
            moments = [moment for p in (d.loc, d.log_scale) for moment in self.moments(p)]
            step_size = group["lr"] * math.sqrt(second) / first
            d.apply(moments, group["clip_norm"], group["betas"], eps, step_size)
            d.loc.deferred = None
        group["eps"] = eps / math.sqrt(second)
        super().step()

    def moments(self, p: nn.Parameter) -> tuple[Tensor, Tensor]:
        """Adam's two of a parameter whose gradients are deferred."""
        state = self.state[p]
        if not state:
            state |= {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
        return state["exp_avg"], state["exp_avg_sq"]


def defer(gradient) -> bool:
    """Leave a `triton_laplace.WeightGradient` to the next step of its parameters' ClippedAdam.

    False if they have none that waits for it. ValueError for a second gradient in one step.
    """
    if not all(hasattr(p, "deferred") for p in (gradient.loc, gradient.log_scale)):
        return False
    if gradient.loc.deferred is not None:
        raise ValueError("a posterior has two deferred gradients in one step")
    gradient.loc.deferred = gradient
    return True
