"""The whole grid with several training stages at once: `python -m pmmo grid -j 4`.

DVC decides what must run; this only starts its processes, since one `dvc repro` runs its stages one
after another. Processes of DVC may run stages side by side in one workspace: each holds the
repository's lock except while its stage's command runs, and `--wait-for-lock` makes the others
wait for it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pmmo.core.errors import PmmoError

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
BEFORE = "extract"  # with all that it needs: everything before training
TRAINING = ("train@", "experiment")  # what may run side by side: names or beginnings of names
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_STOP = 20.0  # for an interrupted stage, before it is killed


def run_grid(jobs: int) -> str:
    """Everything before training, then `jobs` training stages at a time, then the rest.

    Returns what was done. Raises PmmoError naming the stages that failed, after the others have
    finished, or if it is interrupted; what is finished is kept.
    """
    try:
        with stopped_by_signals():
            run_stages([("repro", BEFORE)], 1)
            stages = changed_stages()
            print(
                f"{len(stages)} training stages to bring up to date, {jobs} at a time", flush=True
            )
            run_stages([("repro", "--single-item", name) for name in stages], jobs)
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
    """The stages' `python` is this one, whether or not .venv is activated; they print UTF-8."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "PYTHONIOENCODING": "utf-8:backslashreplace"}


def run_stages(commands: Sequence[tuple[str, ...]], jobs: int) -> None:
    """Run DVC once for each command, `jobs` at a time; PmmoError names those that failed."""
    waiting, running, failed = list(commands), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                command = waiting.pop(0)
                running[command] = start(command)
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


def start(command: tuple[str, ...]) -> tuple[subprocess.Popen, threading.Thread]:
    """DVC in a session of its own, and a thread that prints its lines with the stage's name."""
    process = subprocess.Popen(
        (*DVC, *command),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",  # what is no Python may print otherwise
        start_new_session=True,  # an interrupt is passed on once, by `stop`, to all it started
    )
    echo = threading.Thread(target=print_lines, args=(process, command[-1]), daemon=True)
    echo.start()
    return process, echo


def print_lines(process: subprocess.Popen, name: str) -> None:
    with process.stdout as lines:
        for line in lines:
            if line.strip():
                print(f"[{name}] {line.rstrip()}", flush=True)


def stop(processes: list[subprocess.Popen]) -> None:
    """Interrupt the processes and all they started; kill what is left after a while."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, sent)
        end = time.monotonic() + SECONDS_TO_STOP
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless under nohup, interrupt like Ctrl-C: no stage is left running."""

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
