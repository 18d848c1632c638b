"""Pyro's ClippedAdam by torch's fused Adam, in one pass over the parameters."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils import clip_grad_value_


class ClippedAdam(torch.optim.Adam):
    """The updates of `pyro.optim.ClippedAdam`: gradients clipped element by element, then Adam.

    Pyro adds eps to sqrt(v), torch to sqrt(v) corrected for bias. Scaling eps by that correction
    makes the updates equal. The correction is the same for all parameters, so all or none of them
    must have a gradient: ValueError otherwise.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, clip_norm: float = 10.0) -> None:
        super().__init__(params, lr=lr, eps=1e-8, fused=True)
        (group,) = self.param_groups
        group |= {"clip_norm": clip_norm, "steps": 0}  # departure D19

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        params = group["params"]
        without = sum(p.grad is None for p in params)
        if without == len(params):
            return
        if without:
            raise ValueError(f"{without} of {len(params)} parameters have no gradient")
        clip_grad_value_(params, group["clip_norm"])
        group["steps"] += 1
        group["eps"] = self.defaults["eps"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
        super().step()
