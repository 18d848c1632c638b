"""A CUDA card: is it right, what can it do, what does a step cost there? `make gpu`.

Contenders run one after another in this process: a process for each takes minutes to start. Every
part but `gpu_tests` and `waits` runs on a CPU too, for the tests.
"""

import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pmmo.benchmark.cases import Case, Shape, case_of
from pmmo.benchmark.machine import machine
from pmmo.benchmark.measure import LATE, Say
from pmmo.benchmark.plan import PUBLISHED
from pmmo.benchmark.runner import Runner
from pmmo.benchmark.stopwatch import seconds_of, synchroniser
from pmmo.benchmark.workers import reason
from pmmo.config.settings import PRECISIONS, Precision, Settings

SHORT = ("pmmo", "together", "together-compiled")
FULL = (*SHORT, "compiled", "bound", "mmo", "gmu", "plain", "torchbnn", "bayesian-torch", "blitz")
PROFILED = ("together", "together-compiled")
TEST_SECONDS, ROUNDS, REPEATS, LARGEST = 100, 3, 20, 5


@dataclass(frozen=True)
class Sizes:
    """Of a run; smaller in the tests."""

    device: str = "cuda"
    shape: Shape = PUBLISHED
    wide: int = 3000
    narrow: int = 1024
    copied: int = 1 << 28  # floats
    precisions: tuple[Precision, ...] = PRECISIONS
    contenders: tuple[str, ...] = FULL
    profiled: tuple[str, ...] = PROFILED
    budget_seconds: float = 240.0  # no new contender starts after this time


def about(device: str) -> dict[str, Any]:
    """Machine, card and versions."""
    found: dict[str, Any] = {**machine(device), "torch": torch.__version__}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {
            "cuda": torch.version.cuda,
            "memory_of_card_gb": round(card.total_memory / 1e9, 1),
            "multiprocessors": card.multi_processor_count,
            "driver": driver(),
        }
    return found


def driver() -> str:
    """Version of NVIDIA's driver, by its own tool."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, encoding="utf-8", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0].strip()


def gpu_tests() -> dict[str, Any]:
    """The tests marked `gpu`: whether they pass, and pytest's last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu", "tests/kernels"]
    command += ["tests/training/test_together.py", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TEST_SECONDS)
    except subprocess.TimeoutExpired:
        return {"passed": False, "words": f"no end within {TEST_SECONDS} seconds"}
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    return {"passed": done.returncode == 0, "words": lines[-1]}


def seconds(run: Callable[[], object], device: str) -> float:
    """Of one run, the mean over REPEATS after three to warm up."""
    seconds_of(run, 3, device)
    return seconds_of(run, REPEATS, device)


def ceilings(sizes: Sizes, settings: Settings) -> dict[str, Any]:
    """Copying in TB/s; products in TFLOP/s at the shape of the image layer, all cycles together."""
    x, y = torch.rand(2, sizes.copied, device=sizes.device)
    moved = 8 * sizes.copied  # bytes
    found: dict[str, Any] = {"copy": moved / seconds(partial(y.copy_, x), sizes.device) / 1e12}
    c, b, i, o = settings.cycles, settings.batch_size, sizes.shape.image, sizes.wide
    before = torch.get_float32_matmul_precision()
    for precision in sizes.precisions:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        x, w, g = (
            torch.randn(c, *shape, device=sizes.device, dtype=kind)
            for shape in ((b, i), (o, i), (b, o))
        )
        runs = {
            "output": partial(torch.matmul, x, w.mT),
            "weights": partial(torch.matmul, g.mT, x),
            "input": partial(torch.matmul, g, w),
        }
        work = 2 * c * b * i * o
        found[precision] = {k: work / seconds(run, sizes.device) / 1e12 for k, run in runs.items()}
    torch.set_float32_matmul_precision(before)
    return found


def cases(sizes: Sizes, settings: Mapping[str, Settings]) -> list[Case]:
    """All contenders in float32, PM+MO's ways in the other precisions."""
    return [
        case_of(name, sizes.wide, settings, sizes.shape, sizes.device, precision)
        for precision in sizes.precisions
        for name in (sizes.contenders if precision == "float32" else SHORT)
    ]


def named(case: Case) -> dict[str, Any]:
    return {
        "contender": case.contender,
        "width": case.settings.width,
        "precision": case.precision,
    }


def timings(case: Case) -> dict[str, Any]:
    """Milliseconds of a step per cycle (median of the rounds) and peak memory."""
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    runner = Runner(case)
    middle = median(runner.seconds() for _ in range(ROUNDS))
    peak = torch.cuda.max_memory_allocated() / 1e9 if case.device == "cuda" else None
    return {"ms": 1e3 * middle, "epoch_seconds": middle * case.steps_per_epoch, "peak_gb": peak}


def measured(case: Case) -> dict[str, Any]:
    """`timings`, or the error of a contender that is missing or finds too little memory."""
    try:
        return timings(case)
    except Exception as error:  # a peer may fail in any way; the table has the error
        return {"error": reason(error)}
    finally:
        free(case.device)


def free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def profiled(case: Case) -> dict[str, Any]:
    """One step: the host's time, the kernels' time and number, and the five largest by name."""
    runner, steps, cuda = Runner(case), 3, case.device == "cuda"
    synchronise = synchroniser(case.device)
    synchronise()
    start = time.perf_counter()
    for _ in range(steps):
        runner.step()
    host = time.perf_counter() - start
    synchronise()
    whole = time.perf_counter() - start
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        for _ in range(steps):
            runner.step()
        synchronise()
    where = DeviceType.CUDA if cuda else DeviceType.CPU
    busy, count = dict[str, float](), 0
    for event in found.events() or []:
        if event.device_type == where and not event.is_user_annotation:
            time_us = event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
            busy[event.name] = busy.get(event.name, 0.0) + time_us / 1e3 / steps
            count += 1
    largest = sorted(busy.items(), key=lambda item: -item[1])[:LARGEST]
    del runner
    free(case.device)
    return {
        "contender": case.contender,
        "step_ms": 1e3 * whole / steps,
        "host_ms": 1e3 * host / steps,
        "kernels_ms": sum(busy.values()),
        "kernels": count / steps,
        "largest": [{"name": name[:100], "ms": ms} for name, ms in largest],
    }


def waits(case: Case) -> list[str]:
    """Places in a step where the host waits for the card; none is expected. CUDA alone."""
    runner = Runner(case)
    batch = runner.batch()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            runner.contender.step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = (w for w in found if "synchronizing" in str(w.message))
    return sorted({f"{w.filename}:{w.lineno}" for w in places})


def repeats(case: Case) -> bool:
    """Whether two trainings from one seed have the same loss, bit for bit."""
    losses = []
    for _ in range(2):
        runner = Runner(case)  # it seeds torch
        losses.append([runner.contender.step(runner.batch()).item() for _ in range(3)])
    return losses[0] == losses[1]


def measure(
    sizes: Sizes, settings: Mapping[str, Settings], say: Say, accuracy: Callable[[], list]
) -> dict[str, Any]:
    """Every part, in order; `accuracy` compares with float64 (`gpu_accuracy`)."""
    deadline, cuda = time.monotonic() + sizes.budget_seconds, sizes.device == "cuda"
    found: dict[str, Any] = {"about": about(sizes.device)}
    if cuda:
        say("tests marked gpu")
        found["tests"] = gpu_tests()
    say("losses and gradients against float64 on the CPU")
    found["accuracy"] = accuracy()
    names = ("together", *(("together-compiled",) if cuda else ()), "mmo", "gmu")
    small = [case_of(name, sizes.narrow, settings, sizes.shape, sizes.device) for name in names]
    say("waits and repeatability")
    found["waits"] = {case.contender: waits(case) for case in small} if cuda else None
    found["repeats"] = {case.contender: repeats(case) for case in small}
    say("ceilings")
    found["ceilings"] = ceilings(sizes, settings["pmmo"])
    found["profiles"] = []
    for name in sizes.profiled:
        say(f"profile: {name}")
        case = case_of(name, sizes.wide, settings, sizes.shape, sizes.device)
        found["profiles"].append(profiled(case))
    found["steps"] = []
    for case in cases(sizes, settings):
        say(str(case))
        late = time.monotonic() > deadline
        found["steps"].append(named(case) | ({"error": LATE} if late else measured(case)))
    return found
