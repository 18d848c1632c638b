"""Several cycles as one system: their parameters in one tensor each, with a leading axis (C, ...).

A GPU takes a step of five cycles in fewer and larger pieces. The original systems become views of
the stacked parameters: training the stack trains each.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from pmmo.core.errors import PmmoError
from pmmo.kernels.layers import BatchNorm, Dropout, Linear
from pmmo.kernels.random_streams import Streams
from pmmo.model.systems import System
from pmmo.model.variational import LaplacePosterior

# layers that take one cycle -> those that take several
TWINS = {nn.Linear: Linear, nn.BatchNorm1d: BatchNorm, nn.Dropout: Dropout}


def build_together(
    build: Callable[[], System], seeds: Sequence[int], device: torch.device
) -> tuple[System, list[System]]:
    """The system whose steps train all cycles, and a system per seed, on `device`.

    For one seed both are the same. Each system starts as `build` makes it after its seed, and
    continues with the random numbers that follow. Seeds torch's global generators.
    """
    streams, systems = Streams(device), []
    for seed in seeds:
        torch.manual_seed(seed)
        systems.append(build().to(device))
        streams.add()
    if len(systems) == 1:
        return systems[0], systems
    body = copy.deepcopy(systems[0])
    stack(body, systems, streams)
    return body, systems


def stack(body: System, systems: Sequence[System], streams: Streams) -> None:
    """Make `body` the stack of `systems`, C systems of its kind on its device.

    The values of `body` are replaced. `streams` holds a random stream for each system. Raises
    PmmoError for a layer that takes one cycle only.
    """
    for name, module in body.named_modules():
        if twin := TWINS.get(type(module)):
            raise PmmoError(
                f"{body.settings.name}: {name} is a torch.nn.{type(module).__name__}, which takes "
                f"one cycle only; take {twin.__name__} from pmmo.kernels.layers, or set "
                "cycles_together to 1"
            )
    for name, parameter in body.named_parameters():
        own = [system.get_parameter(name) for system in systems]
        parameter.data = torch.stack([p.data for p in own])
        for p, part in zip(own, parameter.data, strict=True):
            p.data = part
    for name, module in body.named_modules():
        for key in list(module._buffers):
            own = [system.get_submodule(name) for system in systems]
            values = torch.stack([getattr(m, key) for m in own])
            setattr(module, key, values)
            for m, part in zip(own, values, strict=True):
                setattr(m, key, part)
        if isinstance(module, (Dropout, LaplacePosterior)):
            module.streams = streams
        if isinstance(module, LaplacePosterior):
            module.cycles = torch.Size([len(systems)])
