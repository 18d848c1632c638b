"""One process per contender, so that threads, allocator and peak memory are separate.

The parent runs one worker at a time. The contenders take turns, A B C, A B C, so that a slow moment
of the machine affects all of them.
"""

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from pmmo.benchmark.cases import Case
from pmmo.core.errors import PmmoError

START_SECONDS = 300  # building, compiling and warming up


class NotMeasured(PmmoError):
    """A contender could not be built or run; the message has the reason."""


def serve(pipe: Connection, case: Case) -> None:
    """The child: build, then answer "seconds", "phases" and "finish" until "stop"."""
    confine(case.threads)
    from pmmo.benchmark.runner import Runner

    try:
        runner = Runner(case)
        pipe.send(("ready", None))
        while (question := pipe.recv()) != "stop":
            pipe.send(("answer", getattr(runner, question)()))
    except Exception as error:  # a peer may fail in any way; the table has the error
        pipe.send(("failed", reason(error)))


def reason(error: Exception) -> str:
    """Why a contender cannot be measured, in a line."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name}): see requirements-bench.txt"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def confine(threads: int) -> None:
    """Restrict this process to `threads` cores, also for libraries without a thread setting."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)
    one = threads == 1
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'false' if one else 'true'}"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


class Worker(AbstractContextManager):
    """A running contender. Raises NotMeasured, with its name and the reason, if it fails."""

    def __init__(self, case: Case) -> None:
        self.case = case
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, case), daemon=True)
        self.process.start()
        other.close()
        try:
            self.wait()
        except BaseException:
            self.close()
            raise

    def ask(self, question: str) -> object:
        with suppress(OSError):  # a dead process is reported below
            self.pipe.send(question)
        return self.wait()

    def wait(self) -> object:
        try:
            if not self.pipe.poll(START_SECONDS):
                raise NotMeasured(f"no answer within {START_SECONDS} seconds")
            kind, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise NotMeasured("its process died (out of memory?)") from None
        if kind == "failed":
            raise NotMeasured(value)
        return value

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        if self.pipe.closed:
            return
        with suppress(OSError):  # it may have ended already
            self.pipe.send("stop")
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()
        self.pipe.close()


def take_turns(
    workers: Mapping[str, Worker], rounds: int, question: str, deadline: float
) -> dict[str, list]:
    """Ask each worker in turn, for `rounds` rounds or until `deadline`, but at least once."""
    answers: dict[str, list] = {name: [] for name in workers}
    for done in range(rounds):
        if done and time.monotonic() > deadline:
            break
        for name, worker in workers.items():
            answers[name].append(worker.ask(question))
    return answers
