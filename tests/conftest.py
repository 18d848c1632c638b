"""One thread, as in the training stage, which forks its cycles: a forked thread pool hangs.

And the clone that the tests of the pipeline and of the documentation share.
"""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pyro
import pytest
import torch
from filelock import FileLock

from tests.clone import make_clone
from tests.messages import FOLDER, record
from tests.test_errors import unmet_messages

# The files that start first: the longest ones. A long file that starts last keeps one worker busy
# while the other has nothing to do. Of the files that share the clone, the first one makes it.
FIRST = ("end_to_end", "in_dvc", "docs", "reports", "together", "experiments", "fetch_resume")

record()
torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is first imported


@pytest.fixture(scope="session")
def clone(tmp_path_factory, worker_id) -> Path:
    """A committed copy of the working tree with tiny sizes, reproduced once for all processes."""
    base = tmp_path_factory.getbasetemp()
    made = (base if worker_id == "master" else base.parent) / "clone"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            make_clone(made.with_name("clone.part"))
            made.with_name("clone.part").rename(made)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("own") / "pmmo"))


@pytest.fixture(scope="module", autouse=True)
def process_as_it_was():
    """Training and prediction set up the process they run in; the next module finds another."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    pyro.enable_validation(True)  # Pyro's default


@pytest.fixture(autouse=True)
def _live_curves_elsewhere(tmp_path_factory, monkeypatch):
    """Training in a test writes no live curves into the working tree."""
    monkeypatch.setattr("pmmo.core.progress.LIVE", tmp_path_factory.getbasetemp() / "live")


def pytest_configure(config) -> None:
    if not hasattr(config, "workerinput"):  # once; the workers of pytest-xdist inherit it
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="pmmo-messages-")
        Path(os.environ[FOLDER]).chmod(0o777)  # some tests run as an ordinary user
        config.add_cleanup(partial(shutil.rmtree, os.environ[FOLDER]))


def pytest_collection_modifyitems(items) -> None:
    order = {f"test_{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(FIRST)))


def pytest_sessionfinish(session, exitstatus) -> None:
    """After the whole suite: every message in docs/errors.md was provoked by some test."""
    config = session.config
    whole = (
        config.args_source is not pytest.Config.ArgsSource.ARGS
        and not config.option.keyword
        and config.option.markexpr in ("", "not long")
    )
    if whole and exitstatus == 0 and not hasattr(config, "workerinput"):
        for message in unmet_messages():
            print(f"\ndocs/errors.md lists a message that no test provokes: {message}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
