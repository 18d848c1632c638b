"""Run the whole grid with several training stages at once: `python -m pmmo grid`.

DVC decides which stages must run. This command starts several DVC processes, because one
`dvc repro` runs its stages one after another. DVC processes can run stages side by side in one
workspace: each process holds the repository's lock except while its stage's command runs, and with
`--wait-for-lock` the others wait for the lock.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pmmo.core.cores import WORKERS, usable_cores
from pmmo.core.errors import PmmoError

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
BEFORE = "extract"  # this stage and its dependencies are everything before training
TRAINING = ("train@", "experiment")  # stages that may run side by side: names or prefixes
MOST_JOBS = 4  # unless asked for more: each holds its own copy of the movies
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_STOP = 20.0  # time for an interrupted stage before it is killed


def run_grid(jobs: int | None = None) -> str:
    """Run everything before training, then `jobs` training stages at a time, then the rest.

    The training stages share the cores. Without `jobs` there are as many stages at a time as
    cores, at most MOST_JOBS. Returns a summary. If stages fail, raises PmmoError with their names
    after the others have finished. Also raises PmmoError if interrupted. Finished work is kept.
    """
    jobs = jobs or min(MOST_JOBS, usable_cores())
    shared = {WORKERS: os.environ.get(WORKERS, str(max(1, usable_cores() // jobs)))}
    try:
        with stopped_by_signals():
            run_stages([("repro", BEFORE)], 1)
            stages = changed_stages()
            print(
                f"{len(stages)} training stages to bring up to date, {jobs} at a time", flush=True
            )
            run_stages([("repro", "--single-item", name) for name in stages], jobs, shared)
            run_stages([("repro",)], 1)
    except KeyboardInterrupt:
        raise PmmoError(
            "interrupted; all stages are stopped and finished cycles are kept: the same command "
            "goes on from there"
        ) from None
    return f"{len(stages)} training stages brought up to date; the reports are those of all rows"


def changed_stages() -> list[str]:
    """The training stages that DVC would run or restore, in the pipeline's order."""
    names = dvc_output("stage", "list", "--name-only").split()
    changed = json.loads(dvc_output("status", "--json"))
    return [name for name in names if name in changed and name.startswith(TRAINING)]


def dvc_output(*arguments: str) -> str:
    done = subprocess.run(
        (*DVC, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise PmmoError(f"`dvc {' '.join(arguments)}` failed with code {done.returncode}")
    return done.stdout


def environment() -> dict[str, str]:
    """The environment in which `python` is this interpreter, even without an activated .venv."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "PYTHONIOENCODING": "utf-8:backslashreplace"}


def run_stages(
    commands: Sequence[tuple[str, ...]], jobs: int, more: Mapping[str, str] | None = None
) -> None:
    """Run DVC once per command, `jobs` at a time; PmmoError names the failed commands.

    `more` is added to the environment.
    """
    waiting, failed = list(commands), []
    running: dict[tuple[str, ...], tuple[subprocess.Popen, threading.Thread]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                command = waiting.pop(0)
                running[command] = start(command, more or {})
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for command, (process, echo) in list(running.items()):
                if process.poll() is not None:
                    echo.join()
                    del running[command]
                    if process.returncode:
                        failed.append(f"`dvc {' '.join(command)}` (code {process.returncode})")
    finally:
        stop([process for process, _ in running.values()])
    if failed:
        raise PmmoError(
            f"failed: {', '.join(failed)}; see above. What is finished is kept: the same command "
            "goes on from there"
        )


def start(
    command: tuple[str, ...], more: Mapping[str, str]
) -> tuple[subprocess.Popen, threading.Thread]:
    """Start DVC in its own session, and a thread that prints its lines with the stage's name."""
    process = subprocess.Popen(
        (*DVC, *command),
        env={**environment(), **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",  # a byte that is no UTF-8 does not stop the output
        start_new_session=True,  # so that `stop` alone interrupts it and its children, once
    )
    echo = threading.Thread(target=print_lines, args=(process.stdout, command[-1]), daemon=True)
    echo.start()
    return process, echo


def print_lines(output: IO[str], name: str) -> None:
    with output as lines:
        for line in lines:
            if line.strip():
                print(f"[{name}] {line.rstrip()}", flush=True)


def stop(processes: list[subprocess.Popen]) -> None:
    """Interrupt the processes and their children; kill the rest after `SECONDS_TO_STOP`."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, sent)
        end = time.monotonic() + SECONDS_TO_STOP
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP unless under nohup, like Ctrl-C, so that all stages stop."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
