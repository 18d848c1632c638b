"""Pyro's ClippedAdam, computed by torch's fused Adam kernel."""

import math
from collections.abc import Iterable

import torch
from torch import nn


class ClippedAdam(torch.optim.Adam):
    """The updates of `pyro.optim.ClippedAdam`: gradients clipped element-wise, then Adam.

    Pyro adds eps to sqrt(v), torch to sqrt(v) corrected for bias; scaling eps by that correction
    makes the updates the same, while the kernel passes over the parameters once. That correction is
    one for all parameters, so their gradients must come together: ValueError otherwise.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, clip_norm: float = 10.0) -> None:
        super().__init__(params, lr=lr, fused=True)
        self.clip_norm = clip_norm  # departure D19
        self.eps = self.defaults["eps"]
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        (group,) = self.param_groups
        without = sum(p.grad is None for p in group["params"])
        if without == len(group["params"]):
            return
        if without:
            raise ValueError(f"{without} of {len(group['params'])} parameters have no gradient")
        self.steps += 1
        torch.nn.utils.clip_grad_value_(group["params"], self.clip_norm)
        group["eps"] = self.eps / math.sqrt(1 - group["betas"][1] ** self.steps)
        super().step()
