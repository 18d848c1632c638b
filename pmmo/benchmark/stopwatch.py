"""Time per call, and per phase of a step. All time counts for the innermost open phase."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch


def synchroniser(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def seconds_of(run: Callable[[], object], count: int, device: str) -> float:
    """Seconds of one `run`, the mean over `count`."""
    synchronise = synchroniser(device)
    synchronise()
    start = time.perf_counter()
    for _ in range(count):
        run()
    synchronise()
    return (time.perf_counter() - start) / count


class Stopwatch:
    """Seconds per phase. `synchronise` waits for the device at each change of phase."""

    def __init__(self, phases: Iterable[str], synchronise: Callable[[], None]) -> None:
        self.seconds = dict.fromkeys(phases, 0.0)
        self.synchronise = synchronise
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Also a decorator, for calls that are a phase."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        self.synchronise()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def timed(watch: Stopwatch, calls: Iterable[tuple[object, str, str]]) -> Iterator[None]:
    """While open, each call of `owner.name` (or `owner[name]` of a dict) is a phase of `watch`.

    `calls` has entries (owner, name, phase). The original functions are restored at the end.
    """
    with ExitStack() as stack:
        for owner, name, phase in calls:
            as_phase = watch.phase(phase)
            if isinstance(owner, dict):
                stack.enter_context(mock.patch.dict(owner, {name: as_phase(owner[name])}))
            else:
                call = as_phase(getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, call))
        yield
