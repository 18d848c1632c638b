"""The machine and the mode of a run, for the reports."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from pmmo.benchmark.stopwatch import seconds_of
from pmmo.training.hardware import cpu_name

PACKAGES = (
    *("torch", "triton", "pyro-ppl", "numpy"),
    *("torchbnn", "bayesian-torch", "blitz-bayesian-pytorch", "numpyro", "jaxlib"),
)
STARTS = 3
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def machine(device: str) -> dict[str, Any]:
    """Hardware, versions, and how busy the machine was before the run."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "huge_pages": huge_pages(),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions(),
    }


def is_busy(about: Mapping[str, Any]) -> bool:
    """Whether other work may have run during the measurement."""
    return about["load_before"] > about["cores"] / 4


def start_up() -> float:
    """Seconds until a training stage can read its movies: Python, imports, process settings."""
    code = (
        "import torch, pmmo.training.variant; from pmmo.training.device import prepare_process; "
        "prepare_process(torch.device('cpu'))"
    )
    start = partial(subprocess.run, [sys.executable, "-c", code], check=True)
    return min(seconds_of(start, 1, "cpu") for _ in range(STARTS))


def huge_pages() -> str:
    """Linux's mode of transparent huge pages (the word in brackets)."""
    if not HUGE_PAGES.exists():
        return "unknown"
    return HUGE_PAGES.read_text(encoding="utf-8").partition("[")[2].partition("]")[0]


def versions() -> dict[str, str]:
    """Version of each package that is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
