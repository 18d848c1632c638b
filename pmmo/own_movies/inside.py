"""Inside a trained model: the weights of its fusion layers, and what they make of movies.

N movies, H hidden units; K posterior draws, which are those of `predict`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pmmo.config.settings import Rule, check_value
from pmmo.core.errors import PmmoError
from pmmo.model.networks import Fused, evaluation_mode
from pmmo.model.variational import BayesianFusion
from pmmo.own_movies.saved_model import Model
from pmmo.training.device import cuda_devices

SAMPLES_RULE = Rule(kind=int, low=0)


def check_samples(model: Model, samples: int) -> None:
    """PmmoError for what is no number of draws, or where there is nothing to draw from."""
    samples = int(samples) if isinstance(samples, np.integer) else samples
    check_value("samples", samples, SAMPLES_RULE)
    settings = model.system.settings
    if samples and settings.posterior_samples is None:
        raise PmmoError(
            f"samples is {samples}: the system {settings.system!r} has no posterior to draw from. "
            "Leave samples out."
        )


@contextmanager
def seeded(model: Model, device: torch.device) -> Iterator[None]:
    """Random numbers are those of the model's cycle; torch's generators are left as they were."""
    with torch.no_grad(), torch.random.fork_rng(cuda_devices(device)):
        torch.manual_seed(model.seed)
        yield


def weights_of(model: Model, samples: int, device: torch.device) -> dict[str, Tensor]:
    """The weights and biases of the layers text, image and gate, by name; K of each if drawn."""
    fusion = model.system.fusion
    if not isinstance(fusion, BayesianFusion):
        return {name: weights.detach() for name, weights in fusion.named_parameters()}
    with seeded(model, device):
        if not samples:
            return fusion.guide.mean()
        draws = [fusion.guide() for _ in range(samples)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


def fused_by(model: Model, text: Tensor, image: Tensor, samples: int, batch_norm: str) -> Fused:
    """z and gate (N, H) by the weights or their posterior mean; (K, N, H) by K draws."""
    system = model.system
    with seeded(model, text.device), evaluation_mode(system, batch_norm):
        text, image = system.inputs(text, image)
        if not samples:
            return system.fuse(text, image, sample=False)
        draws = [system.fuse(text, image, sample=True) for _ in range(samples)]
    z, gate = (torch.stack(values) for values in zip(*draws, strict=True))
    return Fused(z, gate)
