"""Every loss term and gradient of one batch on a device, against float64 on the CPU."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pmmo.benchmark.cases import Case, Shape
from pmmo.benchmark.contenders import sizes
from pmmo.benchmark.runner import movies
from pmmo.config.settings import Settings
from pmmo.model.build import build_system
from pmmo.model.systems import Batch, bce
from pmmo.training.device import prepare_process

ROWS = (
    *("pmmo-kl-l2", "pmmo-kl-l1", "pmmo-v2-l2", "pmmo-v1", "pmmo-literal", "mmo", "gmu"),
    *("mlp-both", "pmmo-released"),
)
COMPILED = ("pmmo-kl-l2", "pmmo-kl-l1", "pmmo-v2-l2", "pmmo-v1")
LARGE = 1e-3  # a relative difference that float32 does not explain


class SameNoise(Messenger):
    """Gives the guide's sites the values loc + b eps, of which autograd then knows."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.noise and message["value"] is None:
            q = message["fn"]
            message["value"] = q.loc + q.log_scale.exp() * self.noise[message["name"]]
            message["done"] = True


def guide_of(system: Any) -> Any:
    """The guide, or None."""
    return getattr(getattr(system, "lifted", system.fusion), "guide", None)


def terms_and_gradients(system: Any, batch: Batch) -> dict[str, Tensor]:
    """In float64 on the CPU, by name."""
    if system.settings.system == "released":
        z = system.fuse(*system.inputs(batch.text, batch.image), sample=False).z
        loss = bce(system.classifier(z), batch.genres, system.settings.bce)
        terms = {"inference": system.inference(batch), "loss": loss}
    else:
        terms = dict(system.losses(batch, 0))
    (terms["loss"] + terms.get("inference", 0.0)).backward()
    named = system.named_parameters()
    found = {f"d {name}": p.grad for name, p in named if p.grad is not None}
    found |= {name: torch.as_tensor(value).detach() for name, value in terms.items()}
    return {name: value.cpu().double() for name, value in found.items()}


def worst(settings: Settings, shape: Shape, device: str) -> tuple[float, str]:
    """The largest difference, relative to the norm of the exact value, and where it is."""
    case = Case("", replace(settings, dropout=0.0), shape, device="cpu")
    batch = Batch(*(column[: settings.batch_size] for column in movies(case)))
    torch.manual_seed(0)
    system = build_system(case.settings, sizes(case)).train()
    reference = copy.deepcopy(system).double()
    system, draws = system.to(device), []
    if (guide := guide_of(system)) is not None:
        guide.register_forward_hook(lambda *call: draws.append(call[-1]))
    found = terms_and_gradients(system, Batch(*(x.to(device) for x in batch)))
    noise = {}
    for name, theta in draws[0].items() if draws else ():
        q = guide_of(reference).distribution(name)
        noise[name] = ((theta.detach().cpu().double() - q.loc) / q.log_scale.exp()).detach()
    with SameNoise(noise):
        exact = terms_and_gradients(reference, Batch(*(x.double() for x in batch)))
    if found.keys() != exact.keys():
        return math.inf, "other terms: " + ", ".join(sorted(found.keys() ^ exact.keys()))
    off = {
        name: float(((found[name] - value).norm() / value.norm()).nan_to_num(nan=math.inf))
        for name, value in exact.items()
        if value.norm() > 1e-12
    }
    where = max(off, key=lambda name: off[name])
    return off[where], where


def accuracy(
    rows: Mapping[str, Settings], shape: Shape, width: int, device: str
) -> list[dict[str, Any]]:
    """A line per row of the tables, and with compiled passes for some on CUDA."""
    prepare_process(torch.device(device))
    small: dict[str, Any] = {"width": width, "maxout_units": 64, "batch_size": 128}
    chosen = [(name, replace(rows[name], **small)) for name in ROWS]
    if device == "cuda":
        compiled = [(name, replace(rows[name], **small, compile=True)) for name in COMPILED]
        chosen += [(f"{name}, compiled", settings) for name, settings in compiled]
    found = []
    for name, settings in chosen:
        difference, where = worst(settings, shape, device)
        found.append({"row": name, "difference": difference, "where": where})
    return found
