"""Live curves: what training writes is what `python -m pmmo watch` draws."""

import pytest

from pmmo.commands import watch
from pmmo.core import progress as monitor
from pmmo.core.errors import PmmoError
from pmmo.core.progress import Monitor


@pytest.fixture
def live(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "LIVE", tmp_path / "live")
    monkeypatch.setattr(watch, "LIVE", tmp_path / "live")
    return tmp_path / "live"


def test_the_file_can_be_read_after_every_epoch(live):
    with Monitor("gmu", 4) as progress:
        assert watch.read(live / "gmu.csv") == {}
        assert "no epoch is done yet" in watch.drawing(live / "gmu.csv")
        for cycle, value in ((1, 0.25), (0, 0.5), (1, 0.75)):
            progress.epoch(cycle, value)
            assert watch.read(live / "gmu.csv")[cycle][-1] == value
    assert watch.read(live / "gmu.csv") == {1: [0.25, 0.75], 0: [0.5]}


def test_the_drawing_puts_cycles_where_they_belong(live):
    with Monitor("gmu", 4) as progress:
        for cycle, value in ((0, 0.2), (1, 0.6), (0, 0.4), (1, 1.0)):
            progress.epoch(cycle, value)
    lines = watch.watch("gmu").splitlines()
    plot = lines[1 : 1 + watch.HEIGHT]
    assert plot[0] == " 1.000 |" + " " * (watch.WIDTH - 1) + "1"  # the highest, last epoch
    assert plot[-1] == " 0.200 |0"  # the lowest, first epoch
    assert "cycle 1: epoch 2, now 1.000, best 1.000 in epoch 2" in lines


def test_a_line_that_is_being_written_waits(live):
    live.mkdir()
    (live / "gmu.csv").write_text("cycle,epoch,dev_weighted\n0,1,0.5\n0,2")
    assert watch.read(live / "gmu.csv") == {0: [0.5]}


def test_nothing_to_watch_says_when_there_will_be(live):
    with pytest.raises(PmmoError, match=r"no curves of any row.*when training starts"):
        watch.watch(None)
