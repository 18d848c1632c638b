"""Measure the cost of a training step: `python -m pmmo.benchmark`, also --gpu, --scaling."""

import argparse
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pmmo.benchmark import gpu_report
from pmmo.benchmark.cases import paper_settings
from pmmo.benchmark.gpu import Sizes, measure
from pmmo.benchmark.gpu_accuracy import accuracy
from pmmo.benchmark.machine import machine, start_up
from pmmo.benchmark.measure import Say, run_group
from pmmo.benchmark.plan import Plan, groups
from pmmo.benchmark.scaling import Sweep, scaling
from pmmo.benchmark.scaling_figure import write_figure
from pmmo.benchmark.tables import write
from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.core.outs import check_output
from pmmo.core.text import print_in_any_locale
from pmmo.params import load_params
from pmmo.training.device import choose_device

QUICK: dict[str, Any] = {"quick": True, "rounds": 3, "guest_rounds": 2, "budget_seconds": 80.0}


def run(plan: Plan, settings: Mapping[str, Settings], folder: Path, say: Say) -> None:
    """Measure every group of the plan, then write the three files."""
    deadline = time.monotonic() + plan.budget_seconds
    about, results = machine(plan.device), []
    about["start_up_seconds"] = start_up()
    for group in groups(plan, settings):
        results += run_group(group, plan.rounds, plan.guest_rounds, deadline, say)
    write(folder, plan, about, results)


def run_scaling(sweep: Sweep, settings: Mapping[str, Settings], base: Path, say: Say) -> None:
    """Measure every axis of the sweep, then write the figure and its numbers."""
    about = machine("cpu")
    write_figure(scaling(sweep, settings, say), about, base)


def run_gpu(sizes: Sizes, folder: Path, say: Say) -> None:
    """Check and measure the CUDA card, then write gpu.md and gpu.json."""
    rows = load_params(scale="paper").rows
    compared = partial(accuracy, rows, sizes.shape, min(256, sizes.narrow), sizes.device)
    gpu_report.write(folder, measure(sizes, paper_settings(), say, compared))


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pmmo.benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="narrow layers, few rounds: 2 minutes")
    parser.add_argument(
        "--gpu", action="store_true", help="instead: check and measure a CUDA card, 5 minutes"
    )
    parser.add_argument(
        "--scaling",
        type=Path,
        metavar="BASE",
        help="instead: draw time and memory against movies, width, cycles and threads (CPU) into "
        "BASE.png, .svg and .csv",
    )
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of the tables")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    name = "gpu.md" if options.gpu else "benchmark.md"
    check_output(options.scaling or options.output / name)
    if options.gpu and not torch.cuda.is_available():
        raise PmmoError("--gpu measures a CUDA card, but torch finds no CUDA device here")
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:4.0f} s  {text}", file=sys.stderr, flush=True)

    if options.scaling:
        run_scaling(Sweep(), paper_settings(), options.scaling, say)
        say(f"written: {options.scaling}.png, .svg, .csv")
        return
    if options.gpu:
        run_gpu(Sizes(), options.output, say)
        say(f"written: {options.output}/gpu.md, .json")
        return
    device = choose_device(options.device).type
    plan = Plan(device=device, **(QUICK if options.quick else {}))
    run(plan, paper_settings(), options.output, say)
    say(f"written: {options.output}/benchmark.md, .csv, .json")


if __name__ == "__main__":
    print_in_any_locale()
    try:
        main()
    except PmmoError as error:
        sys.exit(f"benchmark: {error}")
