"""Learning curves of running training in the terminal: `python -m pmmo watch [ROW]`."""

import csv
import sys
import time
from contextlib import suppress
from pathlib import Path

from pmmo.core.errors import PmmoError
from pmmo.core.progress import LIVE
from pmmo.core.stage import COPIES

WIDTH, HEIGHT = 60, 14  # characters
SECONDS = 1.0  # between two readings of the file
Curves = dict[int, list[float]]  # cycle -> weighted F1 on dev after each epoch


def watch(row: str | None) -> str:
    """Draw a variant's curves (default: the newest) until Ctrl-C; without a terminal, once."""
    path = newest(row)
    shown = ""
    with suppress(KeyboardInterrupt):
        while sys.stdout.isatty():
            text = drawing(path)
            if text != shown:
                print(f"\x1b[2J\x1b[H{text}\nCtrl-C ends this look, not the training.", flush=True)
                shown = text
            time.sleep(SECONDS)
    return drawing(path)


def newest(row: str | None) -> Path:
    """The most recently written live file, here or in the copy of a queued experiment."""
    places = [Path(), *Path(COPIES).glob("*")]
    found = [path for place in places for path in (place / LIVE).glob(f"{row or '*'}.csv")]
    if not found:
        what = f"the row {row!r}" if row else "any row"
        raise PmmoError(
            f"{LIVE}: no curves of {what}. They appear when training starts: `dvc repro`, or "
            "`dvc exp run -S elbo=v2 experiment`."
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def drawing(path: Path) -> str:
    """The file as a plot of characters: a digit per cycle, epochs to the right, F1 upwards."""
    curves = read(path)
    lines = [f"{path}: weighted F1 on dev by epoch; a digit is a cycle"]
    values = [value for curve in curves.values() for value in curve]
    if not values:
        return "\n".join([*lines, "no epoch is done yet"])
    low, high = min(values), max(values)
    epochs = max(map(len, curves.values()))
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for cycle, curve in curves.items():
        for epoch, value in enumerate(curve):
            across = round(epoch / max(1, epochs - 1) * (WIDTH - 1))
            up = round((value - low) / max(high - low, 1e-9) * (HEIGHT - 1))
            cells[HEIGHT - 1 - up][across] = str(cycle % 10)
    scale = {0: f"{high:.3f}", HEIGHT - 1: f"{low:.3f}"}
    lines += [f"{scale.get(i, ''):>6} |{''.join(row).rstrip()}" for i, row in enumerate(cells)]
    lines += [f"{'':6} +{'-' * WIDTH}", f"{'':8}1{epochs:>{WIDTH - 1}}"]
    for cycle, curve in sorted(curves.items()):
        best = max(curve)
        lines.append(
            f"cycle {cycle}: epoch {len(curve)}, now {curve[-1]:.3f}, best {best:.3f} "
            f"in epoch {curve.index(best) + 1}"
        )
    return "\n".join(lines)


def read(path: Path) -> Curves:
    """The curves so far, without a line that is only partly written."""
    curves: Curves = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            try:
                curves.setdefault(int(line["cycle"]), []).append(float(line["dev_weighted"]))
            except TypeError:  # fewer fields than columns
                break
    return curves
