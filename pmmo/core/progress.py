"""How far a transfer is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from pmmo.core.text import to_nowhere

LINE_SECONDS = 20.0  # between lines in a log


def tell(line: str, stream: TextIO) -> None:
    """Print a line of progress. If its reader has gone, this and later lines are dropped."""
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        to_nowhere(stream)


class Progress:
    """Counts bytes towards `total`; shows bytes, rate and time left on `stream`."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self.label, self.total, self.count = label, total, 0
        self.stream = sys.stderr if stream is None else stream
        self.start = self.last = time.monotonic()
        self.bar = None
        if self.stream.isatty():
            self.bar = tqdm(
                desc=label, total=total, unit="B", unit_scale=True, file=self.stream, leave=False
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        self._line()

    def moved(self, count: int) -> None:
        self.count += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.last >= LINE_SECONDS:
            self._line()

    def _line(self) -> None:
        self.last = time.monotonic()
        meter = tqdm.format_meter(
            self.count,
            self.total,
            self.last - self.start,
            unit="B",
            unit_scale=True,
            bar_format="{n_fmt} of {total_fmt} ({percentage:.0f}%), {rate_fmt}, {remaining} left",
        )
        tell(f"{self.label}: {meter}", self.stream)


SECONDS_BETWEEN_LINES = 20.0
LIVE = Path(".work/live")  # <row>.csv: dev F1 of each epoch so far; outside DVC's outs


class Monitor:
    """Counts epochs over all cycles of a row and shows the latest dev F1 and the time left."""

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.start = self.spoke = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=epochs, desc=name, unit="epoch", disable=not self.terminal)
        self.done, self.epochs = 0, epochs
        self.seen: Counter[int] = Counter()  # epochs by cycle
        LIVE.mkdir(parents=True, exist_ok=True)
        live = LIVE / f"{name}.csv"
        live.unlink(missing_ok=True)  # a new file, wherever a link of this name led
        self.live = live.open("x", buffering=1, encoding="utf-8")  # a line at a time
        self.live.write("cycle,epoch,dev_weighted\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        with suppress(OSError):
            self.live.close()
        if kind is None and not self.terminal:
            self.say(f"done in {time.monotonic() - self.start:.0f} s")

    def epoch(self, cycle: int, dev_f1: float) -> None:
        """One more epoch is done, of `cycle`, with this weighted F1 on dev."""
        self.done += 1
        self.seen[cycle] += 1
        with suppress(OSError):  # a full disk: a curve to look at ends no training
            self.live.write(f"{cycle},{self.seen[cycle]},{dev_f1:.4f}\n")
        state = f"cycle {cycle}: dev F1 {dev_f1:.3f}"
        self.bar.set_postfix_str(state, refresh=False)
        self.bar.update()
        now = time.monotonic()
        if not self.terminal and now - self.spoke >= SECONDS_BETWEEN_LINES:
            self.spoke = now
            left = (now - self.start) / self.done * (self.epochs - self.done)
            self.say(f"{self.done} of {self.epochs} epochs, {state}, {left:.0f} s left")

    def say(self, what: str) -> None:
        tell(f"{self.name}: {what}", sys.stderr)
