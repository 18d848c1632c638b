"""How far a transfer is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 20.0  # between lines in a log


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
        print(f"{self.label}: {meter}", file=self.stream, flush=True)
