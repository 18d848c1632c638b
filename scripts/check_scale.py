"""Check before a release that every system still trains at the paper's sizes, on synthetic movies.

    python -m scripts.check_scale --output docs/scale-check.md

Each system of `scale: paper` trains for a few epochs on as many synthetic movies as MM-IMDb has,
at width 1024 at most, and must come within 0.02 of its reference: the weighted F1 on dev that it
reached when its settings were chosen (docs/openings-paper.md). Test is never looked at. About five
minutes on two cores. The exit code is 1 if a system does not reach its reference.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from pmmo.benchmark.tables import grid
from pmmo.config.settings import Settings
from pmmo.core.outs import check_output
from pmmo.core.writing import write_text
from pmmo.params import load_params
from pmmo.published.mmimdb import ROWS
from pmmo.training.device import choose_device, prepare_process
from pmmo.training.loop import train_cycle
from pmmo.training.variant import load_splits
from scripts.probe import tensors_of

WORK = Path(".work/check-scale")
MARGIN = 0.02
WIDTH = 1024  # instead of 3000, to take minutes


@dataclass(frozen=True)
class Check:
    variant: str  # of params.yaml
    epochs: int
    reference: float  # weighted F1 on dev at the best epoch


CHECKS = (
    Check("pmmo-kl-l2-1024", 5, 0.634),
    Check("mmo", 5, 0.632),
    Check("gmu", 5, 0.628),
)


def settings(check: Check, width: int, device: str) -> Settings:
    """The variant at `scale: paper`, with this width unless it is narrower."""
    found = load_params(scale="paper").rows[check.variant]
    width = min(width, found.width)
    units = width if found.maxout_units == found.width else found.maxout_units
    return replace(
        found, width=width, maxout_units=units, epochs=check.epochs, cycles=1, device=device
    )


def dev_curve(check: Check, tensors: Path, width: int) -> list[float]:
    """Weighted F1 on dev of each epoch, of the first cycle."""
    device = choose_device("auto")
    own = settings(check, width, device.type)
    prepare_process(device, own.precision)
    return [
        line["dev_weighted"] for line in train_cycle(own, load_splits(tensors, device), 0).curves
    ]


def run(checks: Sequence[Check], rows: int, width: int) -> tuple[str, bool]:
    """The table of the checks as Markdown, and whether all reach their reference."""
    work = partial(dev_curve, tensors=tensors_of("synthetic", rows, WORK), width=width)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        curves = list(pool.map(work, checks))
    lines = []
    for check, curve in zip(checks, curves, strict=True):
        enough = max(curve) >= check.reference - MARGIN
        epochs = ", ".join(f"{f1:.3f}" for f1 in curve)
        verdict = "yes" if enough else "**no**"
        lines.append((f"`{check.variant}`", epochs, f"{max(curve):.3f}", check.reference, verdict))
    head = ("Variant", "dev weighted F1 by epoch", "best", "reference", f"within {MARGIN}")
    return grid(head, lines, 2), all(line[-1] == "yes" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--output", type=Path, help="a Markdown file, too")
    arguments = parser.parse_args()
    if arguments.output:
        check_output(arguments.output)
    table, enough = run(CHECKS, arguments.rows, arguments.width)
    text = (
        "# The check of `scale: paper`\n\nWritten by `python -m scripts.check_scale` "
        f"({arguments.rows:,} synthetic movies, widths of at most {arguments.width}, one cycle, "
        f"torch {torch.__version__}). It says that each system trains with the settings of "
        f"`scale: paper`, and nothing about the paper.\n\n{table}"
    )
    print(text)
    if arguments.output:
        write_text(arguments.output, text)
    if not enough:
        sys.exit("check_scale: a system does not reach its reference; see the table")


if __name__ == "__main__":
    main()
