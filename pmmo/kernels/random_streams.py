"""Random numbers: uniform noise for the draws, and one stream per cycle trained together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


class Streams:
    """The random streams of cycles that are trained together, as states of torch's generator.

    Each cycle draws the numbers that it draws when it is trained alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.states: list[Tensor] = []

    def add(self) -> None:
        """Begin another stream where torch's generator of the device stands now."""
        self.states.append(self._generator().get_state())

    @contextmanager
    def of(self, cycle: int) -> Iterator[None]:
        """Random numbers of the device come from this stream; torch's own is left as it was."""
        generator = self._generator()
        outside = generator.get_state()
        generator.set_state(self.states[cycle])
        try:
            yield
        finally:
            self.states[cycle] = generator.get_state()
            generator.set_state(outside)

    def _generator(self) -> torch.Generator:
        if self.device.type != "cuda":
            return torch.default_generator
        index = self.device.index
        return torch.cuda.default_generators[
            torch.cuda.current_device() if index is None else index
        ]


def uniform_source(like: Tensor) -> Callable[[Tensor], Tensor]:
    """Fills blocks with u ~ U(-1, 1), never 0; seeded by torch's generator of the device.

    On a CPU torch draws 1.9 ns per number; numpy's SFC64 and the conversion below take 1.0 ns.
    """
    if like.device.type != "cpu":
        return lambda u: u.uniform_(-1, 1).masked_fill_(u == 0, 2.0**-25)
    bits = np.random.SFC64(int(torch.randint(2**63 - 1, ())))

    def fill(u: Tensor) -> Tensor:
        words = bits.random_raw((u.numel() + 1) // 2).view(np.int32)[: u.numel()]
        # by numpy's one thread: random_raw waits for words that another core has touched
        np.bitwise_or(words, 1, out=words)
        np.copyto(u.numpy(), words, casting="unsafe")
        return u.mul_(2.0**-31)

    return fill


def noise_source(like: Tensor, streams: Streams | None) -> Callable[[Tensor], object]:
    """`uniform_source`; with several cycles each fills its own part (n,) from its own stream."""
    if streams is None:
        return uniform_source(like)

    def fill(u: Tensor) -> None:  # (C, n)
        for cycle, own in enumerate(u):
            with streams.of(cycle):
                uniform_source(own)(own)

    return fill


def draw_seeds(like: Tensor, streams: Streams | None) -> Tensor:
    """A seed (C,) for one draw of each cycle, from its stream; (1,) of one cycle. On the device."""
    seeds = like.new_empty(1 if streams is None else len(streams.states), dtype=torch.int64)
    if streams is None:
        return seeds.random_()
    for cycle, own in enumerate(seeds):
        with streams.of(cycle):
            own.random_()
    return seeds
