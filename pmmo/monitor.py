"""Progress of training: a bar on a terminal, sparse lines in a log."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20.0


class Monitor:
    """Counts epochs over all cycles of a row and shows the latest dev F1 and the time left."""

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.start = self.spoke = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=epochs, desc=name, unit="epoch", disable=not self.terminal)
        self.done, self.epochs = 0, epochs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if kind is None and not self.terminal:
            self.say(f"done in {time.monotonic() - self.start:.0f} s")

    def epoch(self, cycle: int, dev_f1: float) -> None:
        """One more epoch is done, of `cycle`, with this weighted F1 on dev."""
        self.done += 1
        state = f"cycle {cycle}: dev F1 {dev_f1:.3f}"
        self.bar.set_postfix_str(state, refresh=False)
        self.bar.update()
        now = time.monotonic()
        if not self.terminal and now - self.spoke >= SECONDS_BETWEEN_LINES:
            self.spoke = now
            left = (now - self.start) / self.done * (self.epochs - self.done)
            self.say(f"{self.done} of {self.epochs} epochs, {state}, {left:.0f} s left")

    def say(self, what: str) -> None:
        print(f"{self.name}: {what}", file=sys.stderr, flush=True)
