"""One thread, as in the training stage, which forks its cycles: a forked thread pool hangs.

And the clone that the tests of the pipeline and of the documentation share.
"""

from pathlib import Path

import pytest
import torch

from tests.clone import make_clone
from tests.messages import record

record()
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Path:
    """A committed copy of the working tree with tiny sizes, reproduced once."""
    folder = tmp_path_factory.mktemp("clone") / "pmmo"
    make_clone(folder)
    return folder


@pytest.fixture(autouse=True)
def _live_curves_elsewhere(tmp_path_factory, monkeypatch):
    """Training in a test writes no live curves into the working tree."""
    monkeypatch.setattr("pmmo.core.progress.LIVE", tmp_path_factory.getbasetemp() / "live")


def pytest_collection_modifyitems(config, items) -> None:
    """The test that looks back on the session comes last."""
    items.sort(key=lambda item: item.name == "test_every_listed_message_is_met_by_a_test")
    config.stash["whole suite"] = (
        config.args_source is not pytest.Config.ArgsSource.ARGS
        and not config.option.keyword
        and not config.option.markexpr
    )
