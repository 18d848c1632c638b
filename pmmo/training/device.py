"""Where training runs: device choice, process-wide numerical settings, and their description."""

import ctypes

import pyro
import torch

from pmmo.core.errors import PmmoError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where present; PmmoError if CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise PmmoError("device is 'cuda' but torch finds no CUDA device; use device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def cuda_devices(device: torch.device) -> list[torch.device]:
    """What `torch.random.fork_rng` needs to leave the device's generator as it was."""
    return [device] if device.type == "cuda" else []


def prepare_process(device: torch.device, precision: str | None = None) -> str:
    """Settings of this process that make steps on `device` fast; only `tf32` costs precision.

    One thread per process: cycles run side by side instead, and a cycle's numbers do not depend on
    the number of cores. Returns the matmul precision chosen. PmmoError for tf32 on a CPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise PmmoError(
            f"precision is 'tf32', which only CUDA devices have, and the device is {device.type}; "
            "use precision: float32 or bf16"
        )
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    pyro.enable_validation(False)
    keep_freed_memory()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
        return "high"
    return choose_matmul(device)


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks: returning them costs a page fault per 4 KiB of each tensor."""
    mmap_threshold, trim_threshold, one_gib = -3, -1, 1 << 30
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc only
        mallopt(mmap_threshold, one_gib)
        mallopt(trim_threshold, one_gib)


def choose_matmul(device: torch.device) -> str:
    """CPU: oneDNN's matrix products where they are as precise as float32's, else the default.

    torch routes "medium" precision to oneDNN, about twice as fast on many CPUs; those with AMX
    would round to bfloat16, so a product is checked against float64 first. A GPU would round to
    TF32: there products stay float32.
    """
    if device.type != "cpu":
        torch.set_float32_matmul_precision("highest")
        return "highest"
    x = torch.linspace(-1, 1, 128 * 1024).sin().view(128, 1024)
    exact = x.double() @ x.double().T
    torch.set_float32_matmul_precision("medium")
    error = ((x @ x.T).double() - exact).abs().max() / exact.abs().max()
    choice = "medium" if error < 1e-5 else "highest"
    torch.set_float32_matmul_precision(choice)
    return choice
