"""A description of the machine that trains."""

import os
import platform
from pathlib import Path
from typing import TypedDict

import pyro
import torch


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def in_words(precision: str | None) -> str:
    """How this process multiplies matrices, in words."""
    if precision == "bf16":
        return "float32, matmul bf16 in training"
    return f"float32, matmul {torch.get_float32_matmul_precision()}"


class Machine(TypedDict):
    """Where cycles were trained."""

    device: str
    cpu: str
    cores: int | None
    gpu: str | None
    workers: int
    threads: int
    precision: str
    python: str
    torch: str
    pyro: str
    cuda: str | None
    platform: str


def describe(device: torch.device, workers: int, precision: str | None = None) -> Machine:
    """Versions and hardware, for the reports."""
    return {
        "device": device.type,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "workers": workers,
        "threads": torch.get_num_threads(),
        "precision": in_words(precision),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "platform": f"{platform.system()} {platform.machine()}",
    }
