"""The release check of `scale: paper`, at a tiny size."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from scripts import check_scale
from scripts.check_scale import Check, run, settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(check_scale, "WORK", tmp_path)


def test_a_system_that_misses_its_reference_is_named(monkeypatch):
    one = partial(ProcessPoolExecutor, 1)  # the start of a second process takes longest here
    monkeypatch.setattr(check_scale, "ProcessPoolExecutor", lambda _, **how: one(**how))
    checks = [Check("gmu", 2, 0.05), Check("mmo", 1, 0.99)]
    table, enough = run(checks, rows=200, width=6)
    assert not enough
    gmu, mmo = table.splitlines()[2:]
    assert gmu.rstrip(" |").endswith("yes")
    assert mmo.rstrip(" |").endswith("**no**")


def test_the_check_trains_the_papers_settings_but_for_width_and_epochs():
    found = settings(Check("mmo", 5, 0.6), 1024, "cpu")
    assert (found.width, found.maxout_units, found.epochs, found.cycles) == (1024, 1024, 5, 1)
    assert (found.dropout, found.classifier_order, found.batch_size) == (0.9, "released", 512)
    assert settings(Check("gmu", 5, 0.6), 1024, "cpu").width == 512
