"""Several cycles as one system: their parameters in one tensor each, with a leading axis (C, ...).

A GPU takes a step of five cycles in fewer and larger pieces. The systems that were stacked go on
to exist, as views of the common one: what trains it trains them, and each is evaluated as ever.
"""

from collections.abc import Callable, Sequence

import torch

from pmmo.kernels.layers import Dropout
from pmmo.kernels.random_streams import Streams
from pmmo.model.systems import System
from pmmo.model.variational import LaplacePosterior


def build_together(
    build: Callable[[], System], seeds: Sequence[int], device: torch.device
) -> tuple[System, list[System]]:
    """A system per seed, on `device`, and the one whose steps train them all; of one: itself.

    Each starts as `build` makes it after its seed, and goes on with the random numbers that
    follow. Seeds torch's global generators.
    """
    streams, systems = Streams(device), []
    for seed in seeds:
        torch.manual_seed(seed)
        systems.append(build().to(device))
        streams.add()
    if len(systems) == 1:
        return systems[0], systems
    body = build().to(device)
    stack(body, systems, streams)
    return body, systems


def stack(body: System, systems: Sequence[System], streams: Streams) -> None:
    """Make `body` the common system of `systems`, C systems of its kind on its device.

    Its own values are lost. `streams` holds a random stream for each.
    """
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
