"""Time per phase of a step. All time counts for the innermost open phase."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


class Stopwatch:
    """Seconds per phase. `synchronise` waits for the device at each change of phase."""

    def __init__(self, phases: Iterable[str], synchronise: Callable[[], None]) -> None:
        self.seconds = dict.fromkeys(phases, 0.0)
        self.synchronise = synchronise
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
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
            stack.enter_context(_timed(watch, owner, name, phase))
        yield


@contextmanager
def _timed(watch: Stopwatch, owner: Any, name: str, phase: str) -> Iterator[None]:
    is_dict = isinstance(owner, dict)
    before = owner[name] if is_dict else getattr(owner, name)
    own = is_dict or name in vars(owner)  # else it is an attribute of the class

    @functools.wraps(before)
    def call(*args: object, **named: object) -> object:
        with watch.phase(phase):
            return before(*args, **named)

    def put(value: object) -> None:
        if is_dict:
            owner[name] = value
        else:
            setattr(owner, name, value)

    put(call)
    try:
        yield
    finally:
        if own:
            put(before)
        else:
            delattr(owner, name)
