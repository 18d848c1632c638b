"""Risk against coverage, against scikit-learn, SciPy and plain loops."""

import numpy as np
import pytest
from scipy.stats import bernoulli
from sklearn.metrics import f1_score

from pmmo.analysis.abstention import (
    ANSWERED,
    COVERAGES,
    abstention,
    answered,
    curve,
    disagreement,
    entropy,
    least_confidence,
    risks,
)
from tests.fake_runs import read, write_all

ROWS = [("gmu", "GMU"), ("pmmo-kl-l2", "PM+MO"), ("gmu-wide", "no part of it")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_all(root, movies=300, cycles=3, variants=ROWS)
    return read(root, ROWS)


@pytest.fixture(scope="module")
def found(runs):
    return abstention(*runs, level=0.95, draws=300, seed=0)


def test_the_entropy_is_scipys_and_certain_genres_have_none():
    p = np.array([[0.0, 1.0], [0.5, 0.5], [0.1, 0.7]], np.float32)
    expected = [np.mean(row) for row in bernoulli.entropy(p.astype(float))]
    np.testing.assert_allclose(entropy(p), expected)
    assert entropy(p)[0] == 0
    np.testing.assert_allclose(least_confidence(p), [0, 0.5, 0.3], atol=1e-7)


def test_models_that_agree_have_no_disagreement():
    same = np.full((4, 3, 2), 0.3)
    opposite = np.stack([np.zeros((3, 2)), np.ones((3, 2))])
    np.testing.assert_allclose(disagreement(same), 0, atol=1e-12)
    np.testing.assert_allclose(disagreement(opposite), np.log(2))  # a coin, and no entropy inside


def test_the_risk_at_a_coverage_is_one_minus_scikit_learns_samples_f1(runs, found):
    run, truth = runs[0]["gmu"], runs[1].truth("test")
    first = found["variants"]["gmu"]["orders"][0]
    assert (first["predictor"], first["measure"]) == ("one cycle", "entropy")
    cycles = run.predictions("test")
    orders = [np.argsort(bernoulli.entropy(p.astype(float)).mean(axis=1)) for p in cycles]
    for place, coverage in list(enumerate(COVERAGES))[3::4]:
        expected = []
        for p, sure in zip(cycles, orders, strict=True):
            kept = sure[: -(-len(truth) * round(100 * coverage) // 100)]
            f1 = f1_score(truth[kept], p[kept] > 0.5, average="samples", zero_division=0)
            expected.append(1 - f1)
        assert first["risk"]["mean"][place] == pytest.approx(np.mean(expected), abs=2e-3)
        assert first["risk"]["sd"][place] == pytest.approx(np.std(expected, ddof=1), abs=2e-3)
    assert first["gain"] == pytest.approx(first["risk"]["mean"][-1] - first["risk"]["mean"][15])
    assert first["low"] < first["gain"] < first["high"]


def test_the_area_of_movies_that_are_wrong_when_unsure():
    """Two right and two wrong of four: the running risk is 0, 0, 1/3, 1/2."""
    truth = np.array([[1], [1], [1], [1]])
    unsure = np.array([[0.4, 0.1, 0.3, 0.2]])
    risk = risks(truth, np.array([[[0], [1], [0], [1]]]) > 0)
    np.testing.assert_array_equal(risk, [[1, 0, 1, 0]])
    assert curve(unsure, risk)["area"]["mean"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    np.testing.assert_array_equal(answered(unsure, 0.5), [[False, True, False, True]])
    assert answered(np.zeros((1, 10)), 0.3)[0].tolist() == [True] * 3 + [False] * 7


def test_a_missing_input_is_judged_by_the_limit_from_dev(runs, found):
    run, truth = runs[0]["pmmo-kl-l2"], runs[1].truth("test")
    entry = found["variants"]["pmmo-kl-l2"]["inputs"]["text only"]
    shares, left = [], []
    for dev, p in zip(run.predictions("dev"), run.predictions("test_image_mean"), strict=True):
        kept = p.max(axis=1) >= np.quantile(dev.max(axis=1), 1 - ANSWERED)
        shares.append(kept.mean())
        f1 = f1_score(truth[kept], p[kept] > 0.5, average="samples", zero_division=0)
        left.append(1 - f1)
    assert entry["answered"]["mean"] == pytest.approx(np.mean(shares), abs=0.01)
    assert entry["answered_risk"]["mean"] == pytest.approx(np.mean(left), abs=0.01)


def test_only_the_three_systems_are_reported_and_one_cycle_is_no_ensemble(runs, found, tmp_path):
    assert list(found["variants"]) == ["gmu", "pmmo-kl-l2"]
    orders = found["variants"]["gmu"]["orders"]
    assert [order["measure"] for order in orders].count("disagreement of cycles") == 1
    assert np.isinf(orders[-1]["low"])  # one ensemble: nothing is known of other seeds
    write_all(tmp_path, movies=60, cycles=1, variants=ROWS[:1])
    alone = abstention(*read(tmp_path, ROWS[:1]), level=0.95, draws=100, seed=0)
    assert {order["predictor"] for order in alone["variants"]["gmu"]["orders"]} == {"one cycle"}
