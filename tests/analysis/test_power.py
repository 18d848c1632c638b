"""Power: parts of the variance, predictions against simulation, and what is needed."""

import numpy as np
import pytest
from scipy import stats

from pmmo.analysis.comparisons import Evidence
from pmmo.analysis.designs import MOST, Prediction, first, pooled
from pmmo.analysis.intervals import Parts, parts, two_way
from pmmo.analysis.power import power
from pmmo.analysis.power_check import check
from tests.fake_runs import VARIANTS, read, write_all

KNOWN = Parts(cycles=0.4, movies=0.3, both=0.9)
DRAWS = 200


def simulate(rng, of: Parts, cycles: int, movies: float, true: float = 0.0):
    """Differences (C,) and draws (B, C) of an experiment with these variances."""
    by_movie, by_both = np.sqrt(of.movies / movies), np.sqrt(of.both / movies)
    points = true + np.sqrt(of.cycles) * rng.standard_normal(cycles)
    points += by_movie * rng.standard_normal() + by_both * rng.standard_normal(cycles)
    draws = points + by_movie * rng.standard_normal((DRAWS, 1))
    return points, draws + by_both * rng.standard_normal((DRAWS, cycles))


def test_the_parts_have_the_right_mean():
    rng = np.random.default_rng(0)
    found = pooled([parts(*simulate(rng, KNOWN, 5, 1)) for _ in range(1500)])
    assert found.cycles == pytest.approx(KNOWN.cycles, abs=0.1)
    assert found.movies == pytest.approx(KNOWN.movies, rel=0.1)
    assert found.both == pytest.approx(KNOWN.both, rel=0.1)


@pytest.mark.parametrize(("cycles", "movies"), [(5, 1), (5, 10), (10, 1), (30, 2)])
def test_the_smallest_difference_is_shown_with_the_stated_probability(cycles, movies):
    rng = np.random.default_rng(cycles)
    predicted = Prediction(KNOWN)
    true = predicted.smallest(cycles, movies)
    low, width = [], []
    for _ in range(1000):
        interval = two_way(*simulate(rng, KNOWN, cycles, movies, true)).interval()
        low.append(interval.low)
        width.append((interval.high - interval.low) / 2)
    assert np.mean(np.array(low) > 0) == pytest.approx(0.8, abs=0.05)
    root_mean_square = np.sqrt(np.mean(np.square(width)))
    assert predicted.half_width(cycles, movies) == pytest.approx(root_mean_square, rel=0.15)


def test_with_chance_in_the_cycles_alone_it_is_the_power_of_the_t_test():
    of = Parts(cycles=1.0, movies=0.0, both=0.0)
    for cycles in (2, 5, 10):
        true = Prediction(of).smallest(cycles, 1)
        runs = true + np.random.default_rng(0).standard_normal((cycles, 40_000))
        tested = stats.ttest_1samp(runs, 0)
        assert np.mean((tested.pvalue < 0.05) & (tested.statistic > 0)) == pytest.approx(
            0.8, abs=0.01
        )


def test_with_chance_in_the_movies_alone_it_is_that_of_the_normal_distribution():
    of = Parts(cycles=0.0, movies=4.0, both=0.0)
    assert Prediction(of).half_width(5, 4) == pytest.approx(1.959964)
    assert Prediction(of).smallest(5, 4) == pytest.approx(1.959964 + 0.841621, rel=1e-5)
    assert Prediction(of).smallest(5, 1) == Prediction(of).smallest(30, 1)  # cycles do not help


def test_what_is_needed_is_just_enough():
    predicted = Prediction(KNOWN)
    cycles = predicted.cycles_needed(2.0, 1)
    assert predicted.smallest(cycles, 1) <= 2.0 < predicted.smallest(cycles - 1, 1)
    movies = predicted.movies_needed(1.5, 5)
    assert predicted.smallest(5, movies) <= 1.5 < predicted.smallest(5, movies - 0.01)


def test_no_number_is_enough_where_the_other_source_remains():
    assert Prediction(KNOWN).cycles_needed(1.0, 1) is None  # the movies alone: 2.8 sqrt(0.3)
    assert Prediction(KNOWN).movies_needed(0.5, 5) is None  # the cycles alone
    assert Prediction(Parts(0.0, 0.0, 0.0)).cycles_needed(0.1, 1) == 2  # equal rows: at once


@pytest.mark.parametrize("answer", [1, 2, 3, 17, 1000, MOST])
def test_the_search_finds_the_first_that_is_enough(answer):
    assert first(lambda number: number >= answer, 1) == answer
    assert first(lambda number: False, 1) is None


def test_negative_estimates_count_in_a_mean_and_are_no_variance():
    noisy = [Parts(-1.0, 0.5, 1.0), Parts(2.0, -1.5, 1.0)]
    assert pooled(noisy) == Parts(0.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_all(root, movies=1200, cycles=5)
    return Evidence(*read(root), draws=400)


def test_each_claim_about_a_difference_has_its_prediction(evidence):
    found = power(evidence, 0.8)
    claims = {claim["key"]: claim for claim in found["claims"]}
    assert len(claims) == 18  # without the count of genres and the clock, with the mean of Table 2
    assert "pmmo-wins-most-genres" not in claims
    assert found["factors"] == pytest.approx([0.599, 2.874], abs=0.001)  # chi2 with 4 degrees
    same = claims.pop("unregularised-earlier")  # the same best epochs in every cycle
    assert (same["smallest"], same["half_width"]) == (0, 0)
    assert np.isnan(list(same["shares"].values())).all()
    for claim in claims.values():
        assert sum(claim["shares"].values()) == pytest.approx(1)
        assert claim["smallest"] > claim["half_width"]
        sizes = [design["smallest"] for design in claim["published"]]
        assert sizes == sorted(sizes, reverse=True)
        assert (claim["needed"] is None) == (claim["paper"] is None)
    assert claims["pmmo-beats-gmu"]["published_movies"] == 7799
    assert claims["unregularised-lower"]["published_movies"] == 2608  # measured on dev


def test_rows_that_did_not_train_and_single_cycles_have_none(evidence, tmp_path):
    without = Evidence(evidence.runs, evidence.movies, draws=100, untrained=["gmu"])
    keys = {claim["key"] for claim in power(without, 0.8)["claims"]}
    assert not keys & {"pmmo-beats-gmu", "wide-gmu-loses", "unregularised-lower"}
    write_all(tmp_path, movies=200, cycles=1, variants=VARIANTS[:4])
    one = Evidence(*read(tmp_path, VARIANTS[:4]), draws=100)
    assert power(one, 0.8)["claims"] == []
    assert check(one) == []


def test_a_quarter_of_the_movies_predicts_the_interval_on_all(evidence):
    quarter, half, cycles = check(evidence)
    assert (quarter["movies"], half["movies"], cycles["cycles"]) == (90, 180, 3)
    for line in (quarter, half, cycles):
        assert line["predicted"] == pytest.approx(line["observed"], rel=0.2)
        assert line["lowest"] < 1 < line["highest"]
    # without the parts apart, a quarter would predict half the width, or all of it
    assert quarter["observed"] == half["observed"] > 0
