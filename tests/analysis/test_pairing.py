"""Differences between rows are paired: the same movies are drawn, the same cycles subtracted."""

import json

import numpy as np
import pytest

from pmmo.analysis.claims import judge_all
from pmmo.analysis.comparisons import Evidence, difference, least
from pmmo.analysis.intervals import WEIGHTED, Interval, two_way
from tests.fake_runs import read, write_all


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_all(root, movies=800)
    return Evidence(*read(root), draws=300)


def interval(evidence: Evidence, better: str, worse: str) -> Interval:
    return least(difference(evidence, better, worse), evidence.level, evidence.seed)


def test_a_row_minus_itself_is_zero_without_doubt(evidence):
    itself = interval(evidence, "gmu", "gmu")
    assert (itself.estimate, itself.low, itself.high) == (0, 0, 0)


def test_swapping_two_rows_turns_the_interval_around(evidence):
    one = interval(evidence, "pmmo-kl-l2", "gmu")
    other = interval(evidence, "gmu", "pmmo-kl-l2")
    assert (one.estimate, one.low, one.high) == pytest.approx(
        (-other.estimate, -other.high, -other.low)
    )


def test_pairing_takes_out_what_the_rows_share(evidence):
    # the movies' difficulty is shared by all rows of tests/fake_runs.py
    paired = interval(evidence, "pmmo-kl-l2", "gmu")
    points, draws = evidence.f1("pmmo-kl-l2")
    base_points, base_draws = evidence.f1("gmu")
    draws = draws[::-1]  # other movies than the baseline's
    unpaired = two_way(
        (points - base_points)[:, WEIGHTED], (draws - base_draws)[:, :, WEIGHTED]
    ).interval()
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)


def test_verdicts_are_words_that_dvc_can_show(evidence):
    judged = judge_all(evidence)
    allowed = {"holds", "does not hold", "equivalent", "undecided", "not run"}
    assert {claim["verdict"] for claim in judged} <= allowed
    assert json.dumps([claim["verdict"] for claim in judged])
    assert all(np.isfinite(claim["ours"]) for claim in judged)
