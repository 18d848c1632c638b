"""Claims and their parts on data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pmmo.analysis.calibration import calibration_error, measures, reliability
from pmmo.analysis.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    LEAST_P,
    holm,
    judge,
    judge_all,
    judge_steps,
    judge_timed,
)
from pmmo.analysis.comparisons import Evidence
from pmmo.analysis.intervals import EQUIVALENT, UNDECIDED, Interval
from pmmo.analysis.metrics import f1_per_genre
from pmmo.decisions.thresholds import GRID, best_thresholds, counts_by_threshold, tune
from tests.fake_runs import VARIANTS, read, write_all


@pytest.mark.parametrize(
    ("low", "high", "strict", "expected"),
    [
        (0.1, 0.2, True, HOLDS),
        (-0.2, -0.1, True, FAILS),
        (-0.1, 0.1, True, UNDECIDED),
        (0.0, 0.1, True, UNDECIDED),
        (0.0, 0.1, False, HOLDS),
        (-np.inf, np.inf, True, UNDECIDED),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, strict, expected):
    assert Interval(0, low, high).verdict(HOLDS, FAILS, strict=strict) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.004, 0.004, EQUIVALENT),
        (-0.005, 0.004, UNDECIDED),  # the margin itself is outside
        (0.0, 0.0, UNDECIDED),  # no movie and no cycle made a difference
        (-0.004, 0.006, UNDECIDED),
        (0.001, 0.004, HOLDS),  # small, and its direction is known
        (-0.004, -0.001, FAILS),
    ],
)
def test_equivalent_is_an_interval_around_zero_within_the_margin(low, high, expected):
    assert Interval(0, low, high).verdict(HOLDS, FAILS, margin=0.005) == expected


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_all(root, movies=2000)
    return Evidence(*read(root), draws=500)


@pytest.fixture(scope="module")
def judged(evidence):
    return {claim["key"]: claim for claim in judge_all(evidence) + judge_timed(evidence)}


def test_what_the_simulation_makes_true_holds_and_what_it_makes_equal_is_not_decided(judged):
    # tests/fake_runs.py: only gmu-unregularised, pmmo-literal, mmo and pmmo-v1 have less skill
    for key in ("unregularised-overfits", "unregularised-lower", "unregularised-earlier"):
        assert judged[key]["verdict"] == HOLDS, key
    assert judged["unregularised-earlier"]["ours"] == 2
    for key in ("pmmo-beats-gmu", "3000-beats-1024", "wide-gmu-loses", "l2-helps-kl"):
        assert judged[key]["low"] < 0 < judged[key]["high"], key
    assert judged["mmo-lowest"]["verdict"] != HOLDS  # pmmo-v1 is weaker
    assert judged["pmmo-epoch-costs-more"]["ours"] == pytest.approx(5.25 / 1.1)


def test_estimates_lie_inside_their_intervals(judged):
    for claim in judged.values():
        assert claim["low"] <= claim["ours"] <= claim["high"], claim["key"]


def test_a_verdict_is_decided_exactly_where_its_p_value_is_small_enough(evidence):
    for margin in (0.0, 0.05):
        wide = replace(evidence, margin=margin)
        for claim in (claim for claim in CLAIMS if not claim.timed):
            p = judge(claim, wide)["p"]
            for level in (1 - 1.01 * p, 1 - 0.99 * p):
                if 0 < level < 1 - 2 * LEAST_P:
                    word = judge(claim, replace(wide, level=level))["verdict"]
                    assert (word != UNDECIDED) == (p <= 1 - level), (claim.key, margin)


def test_the_p_value_of_a_difference_is_students(evidence):
    claim = next(claim for claim in CLAIMS if claim.key == "kl-beats-v1")
    spread = claim.differences(evidence).spread()
    expected = 2 * stats.t.sf(abs(spread.mean[0]) / spread.error[0], spread.freedom[0])
    assert judge(claim, evidence)["p"] == pytest.approx(expected, rel=1e-4)


def test_equal_rows_are_equivalent_with_a_wide_margin(evidence):
    claim = next(claim for claim in CLAIMS if claim.key == "l2-helps-kl")
    assert judge(claim, evidence)["verdict"] == UNDECIDED
    assert judge(claim, replace(evidence, margin=0.2))["verdict"] == EQUIVALENT


def test_holms_correction_by_hand():
    # 0.01 * 4; 0.02 * 3 = 0.06; 0.03 * 2 = 0.06; 0.04 * 1 is raised to the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holms_correction_keeps_the_share_of_families_with_an_error():
    found = np.random.default_rng(0).random((4000, 17))  # p-values of 17 true nulls
    wrong = np.mean([min(holm(p_values)) <= 0.05 for p_values in found])
    assert wrong == pytest.approx(0.05, abs=0.012)
    assert np.mean(found.min(axis=1) <= 0.05) > 0.5  # what it corrects


def test_holm_decides_no_more_than_single_verdicts_and_with_the_same_word(judged):
    together = [claim for claim in judged.values() if "p_holm" in claim]
    assert len(together) == sum(not claim.timed for claim in CLAIMS)
    for claim in together:
        assert claim["p_holm"] >= claim["p"]
        assert claim["verdict_holm"] in (claim["verdict"], UNDECIDED)
    assert judged["unregularised-lower"]["verdict_holm"] == HOLDS
    weakest = [c for c in together if c["verdict"] == HOLDS and c["verdict_holm"] == UNDECIDED]
    assert all(claim["p"] > 0.05 / len(together) for claim in weakest)


def test_steps_add_up_and_the_central_claim_is_first(evidence, judged):
    *single, total = judge_steps(evidence)
    assert sum(step["ours"] for step in single) == pytest.approx(total["ours"])
    assert total["ours"] == judged["pmmo-beats-gmu"]["ours"]
    assert CLAIMS[0].key == "pmmo-beats-mmo"
    assert single[-1]["ours"] == judged["pmmo-beats-mmo"]["ours"]
    assert single[-1]["paper"] == 0.015
    claimed = {claim["statement"]: claim["where"] for claim in judged.values()}
    assert single[-1]["where"] == claimed[CLAIMS[0].statement]
    assert total["where"] == claimed["PM+MO scores higher than the GMU"]
    assert [step["where"] for step in single[:-1]] == ["–", "–"]  # no claims of the paper


def test_a_claim_about_a_row_that_had_not_stopped_improving_names_it(evidence):
    found = {c["key"]: c for c in judge_all(replace(evidence, rising=["gmu", "pmmo-v1"]))}
    assert found["pmmo-beats-gmu"]["rising"] == ["gmu"]
    assert found["mmo-lowest"]["rising"] == ["pmmo-v1"]  # a row that it takes in
    assert found["pmmo-beats-mmo"]["rising"] == []
    assert found["pmmo-beats-gmu"]["verdict"] != "not decidable"


def test_the_papers_differences_are_those_of_its_tables():
    printed = {claim.key: claim.paper for claim in CLAIMS}
    assert printed["pmmo-beats-gmu"] == 0.009  # section 4.2
    assert printed["kl-l2-beats-v2-l2"] == 0.003  # section 4.2
    assert printed["3000-beats-1024"] == 0.018
    assert (printed["l2-helps-kl"], printed["l2-helps-v2"], printed["l2-helps-v1"]) == (
        0.006,
        0.003,
        0.005,
    )
    assert printed["mmo-lowest"] == 0.007
    assert printed["pmmo-wins-most-genres"] == 15
    assert printed["pmmo-epoch-costs-more"] == 4.77
    assert printed["pmmo-beats-mmo"] == 0.015  # section 4.2


def test_claims_have_distinct_keys_and_need_known_rows():
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    assert {name for claim in CLAIMS for name in claim.needs} <= {name for name, _ in VARIANTS}


# --- calibration ---------------------------------------------------------------------------------


def test_calibration_of_six_forecasts_by_hand():
    truth = np.array([[0, 1], [1, 1], [0, 0]])
    forecast = np.array([[0.1, 0.9], [0.9, 0.9], [0.1, 0.9]])
    found = measures(truth, forecast)
    assert found["nll"] == pytest.approx(-(5 * np.log(0.9) + np.log(0.1)) / 6)
    assert found["brier"] == pytest.approx((5 * 0.01 + 0.81) / 6)
    # bin of 0.1: observed 0 (2 of 6); bin of 0.9: observed 3/4 (4 of 6)
    assert found["ece"] == pytest.approx(2 / 6 * 0.1 + 4 / 6 * 0.15)


def test_honest_forecasts_are_calibrated_and_every_pair_is_in_a_bin():
    rng = np.random.default_rng(0)
    forecast = rng.random((20_000, 3)).astype(np.float32)
    curve = reliability((rng.random(forecast.shape) < forecast).astype(int), forecast)
    assert curve.share.sum() == pytest.approx(1)
    assert calibration_error(curve) < 0.01
    late = reliability((rng.random(forecast.shape) < forecast**2).astype(int), forecast)
    assert calibration_error(late) == pytest.approx(1 / 6, abs=0.01)  # mean of x - x^2


def test_forecasts_on_the_edges_of_bins_keep_counts_and_curve_in_step():
    forecast = np.linspace(0, 1, 16)[:, None]
    curve = reliability((forecast > 0.5).astype(int), forecast)
    assert len(curve.share) == len(curve.predicted) == 15
    assert curve.share[0] == pytest.approx(2 / 16)  # 0 and 1/15 share the first bin


# --- thresholds ----------------------------------------------------------------------------------


def test_threshold_counts_equal_scores_at_that_threshold():
    rng = np.random.default_rng(0)
    truth = (rng.random((80, 3)) < 0.4).astype(np.uint8)
    forecast = np.round(rng.random((80, 3)), 2)  # many exactly on the grid
    hits, guesses = counts_by_threshold(truth, forecast)
    f1 = 2 * hits / np.maximum(guesses + truth.sum(axis=0)[:, None], 1)
    for index in (0, 17, 45, 90):
        np.testing.assert_allclose(f1[:, index], f1_per_genre(truth, forecast > GRID[index]))


def test_tuned_thresholds_find_the_separating_one_and_ties_stay_near_the_default():
    truth = np.repeat([[0, 0], [1, 0]], 50, axis=0)
    forecast = np.column_stack([np.where(truth[:, 0] == 1, 0.3, 0.1), np.full(100, 0.02)])
    counts = counts_by_threshold(truth, forecast)
    chosen = best_thresholds(counts, truth.sum(axis=0), 0.5)
    assert 0.1 <= chosen[0] < 0.3
    assert chosen[1] == pytest.approx(0.5)  # no positive: nothing to gain, so no change
    thresholds, on_dev = tune(truth, forecast, 0.5)
    np.testing.assert_allclose(thresholds, chosen)
    np.testing.assert_array_equal(on_dev[:, 0], truth[:, 0] == 1)


def test_cross_fitted_dev_scores_do_not_reward_noise():
    # labels that the forecasts know nothing about: thresholds fitted on the same movies look
    # better on them than on the movies left out
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 40)) < 0.2).astype(np.uint8)
    forecast = rng.random((60, 40))
    thresholds, on_dev = tune(truth, forecast, 0.5)
    fitted = np.mean(f1_per_genre(truth, forecast > thresholds))
    assert np.mean(f1_per_genre(truth, on_dev)) < fitted - 0.02
