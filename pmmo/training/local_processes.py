"""Several groups of cycles side by side, in forked processes on this machine."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from pmmo.core.errors import PmmoError
from pmmo.training.loop import Report


def words(group: list[int]) -> str:
    return ("cycle " if len(group) == 1 else "cycles ") + ", ".join(map(str, group))


def side_by_side(
    train: Callable[[list[int], Report], None],
    groups: list[list[int]],
    workers: int,
    on_epoch: Report,
) -> None:
    """Run `train(cycles, report)` of each group in a forked process, `workers` at a time.

    Raises PmmoError with a group's message, or naming the cycles whose process died; the others
    are stopped.
    """
    context = get_context("fork")
    waiting = list(groups)
    running: dict[Any, tuple[list[int], BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                group = waiting.pop(0)
                reader, writer = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=in_child, args=(train, group, writer, os.getpid()), daemon=True
                )
                with undisturbed():
                    process.start()
                    running[reader] = (group, process)
                writer.close()
            ready: list[Any] = list(wait(list(running)))
            for reader in ready:
                group, process = running[reader]
                try:
                    message = reader.recv()
                except EOFError:  # the process has ended
                    del running[reader]
                    process.join()
                    if code := process.exitcode:
                        why = "killed; out of memory?" if code < 0 else "its traceback is above"
                        raise PmmoError(
                            f"the process of {words(group)} ended with code {code} ({why}); "
                            "finished cycles are kept: run again"
                        ) from None
                    continue
                if isinstance(message, str):
                    raise PmmoError(message)
                on_epoch(*message)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits: Python swallows a KeyboardInterrupt that falls into the hooks of a fork.

    A handler remembers it. To block the signal would not do: the system then delivers it to
    another thread, and Python raises it here all the same.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # handlers run in the main thread alone; or Ctrl-C is ignored, as under nohup
        return
    caught = []
    signal.signal(signal.SIGINT, lambda *signal_and_frame: caught.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        before(*caught[0])


def in_child(
    train: Callable[[list[int], Report], None], group: list[int], writer: Connection, parent: int
) -> None:
    """A group in its own process; sends cycle, epoch and dev F1, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent stops its children

    def report(*news: float) -> None:
        if os.getppid() != parent:  # the parent was killed: leave nothing running
            os._exit(1)
        writer.send(news)

    try:
        train(group, report)
    except (PmmoError, OSError) as error:
        writer.send(str(error))
