"""Intervals: F1 by counts equals scikit-learn, and the nominal coverage is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pmmo.analysis.intervals import f1_draws, f1_points, resample, smallest, two_way, wins
from pmmo.analysis.metrics import f1_per_genre, f1_scores
from pmmo.core.names import AVERAGES

CYCLES = 5


def scores(y_true, y_pred):
    return [*f1_scores(y_true, y_pred).values(), *f1_per_genre(y_true, y_pred)]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    movies=st.integers(1, 30),
    genres=st.integers(2, 6),
    rate=st.floats(0, 1),
)
def test_f1_by_counts_equals_scikit_learn(seed, movies, genres, rate):
    rng = np.random.default_rng(seed)
    truth = (rng.random((movies, genres)) < 0.4).astype(np.uint8)
    predicted = rng.random((2, movies, genres)) < rate  # rate 0: nothing guessed
    expected = [scores(truth, guess) for guess in predicted]
    np.testing.assert_allclose(f1_points(truth, predicted), expected, atol=1e-6)


def test_f1_of_resampled_movies_equals_scikit_learn_on_the_repeated_rows():
    rng = np.random.default_rng(0)
    truth = (rng.random((50, 4)) < 0.3).astype(np.uint8)
    predicted = rng.random((3, 50, 4)) < 0.3
    weights = resample(50, 6, seed=1)
    draws = f1_draws(weights, truth, predicted)  # (6, 3, 8)
    for b, weight in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(50), weight)
        expected = [scores(truth[rows], guess[rows]) for guess in predicted]
        np.testing.assert_allclose(draws[b], expected, atol=1e-6)


def test_every_resampling_draws_as_many_movies_as_there_are_and_is_repeatable():
    weights = resample(37, 11, seed=3)
    assert weights.sum(axis=1).tolist() == [37] * 11
    np.testing.assert_array_equal(weights, resample(37, 11, seed=3))
    assert (weights != resample(37, 11, seed=4)).any()


def test_without_chance_of_movies_the_interval_is_students():
    points = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    interval = two_way(points, np.stack([points, points])).interval()
    expected = stats.t.interval(0.95, 4, points.mean(), stats.sem(points))
    np.testing.assert_allclose((interval.low, interval.high), expected)


def test_without_chance_of_cycles_the_interval_is_the_bootstraps():
    shift = np.random.default_rng(0).normal(0, 0.01, (4000, 1))
    interval = two_way(np.full(5, 0.2), 0.2 + np.repeat(shift, 5, axis=1)).interval()
    reach = 1.959964 * shift.std(ddof=1)
    np.testing.assert_allclose((interval.low, interval.high), (0.2 - reach, 0.2 + reach), rtol=1e-6)


def test_one_cycle_says_nothing_about_other_seeds():
    interval = two_way(np.array([0.2]), np.full((10, 1), 0.2)).interval()
    assert (interval.estimate, interval.low, interval.high) == (0.2, -np.inf, np.inf)
    won = wins(np.ones((1, 7)), np.ones((10, 1, 7)))
    assert (won.estimate, won.low, won.high) == (7, 0, 7)


def trained(rng, truth, cycles, skill, by_cycle, by_movie, by_both):
    """Guesses (C, N, G) of a row: its skill varies by cycle, by movie and by both."""
    shape = (cycles, *truth.shape)
    skills = skill + by_cycle * rng.standard_normal((cycles, 1, 1))
    noise = by_movie * rng.standard_normal(truth.shape) + by_both * rng.standard_normal(shape)
    return skills * (2.0 * truth - 1) + noise > 0.2


def simulate(mix, skills=(1.0, 1.0), repetitions=400, movies=150, seed=0, cycles=CYCLES):
    """Estimates and bounds of the weighted F1 difference of two rows, repeated."""
    rng = np.random.default_rng(seed)
    weights = resample(movies, 200, seed)
    found = []
    for _ in range(repetitions):
        truth = (rng.random((movies, 3)) < (0.5, 0.3, 0.15)).astype(np.uint8)
        pair = [trained(rng, truth, cycles, skill, *mix) for skill in skills]
        points = np.subtract(*(f1_points(truth, guess) for guess in pair))
        draws = np.subtract(*(f1_draws(weights, truth, guess) for guess in pair))
        column = AVERAGES.index("weighted")
        interval = two_way(points[:, column], draws[:, :, column]).interval()
        found.append((interval.estimate, interval.low, interval.high))
    return np.array(found).T


MIXES = {  # sd of the skill by cycle, of the noise by movie, of the noise by both
    "cycles": (0.25, 0.1, 0.6),
    "movies": (0.0, 1.2, 0.3),
    "movies and both": (0.0, 0.8, 0.8),
    "cycles and movies": (0.06, 1.0, 0.3),
    "all": (0.05, 0.7, 0.7),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_95_percent_intervals_cover_two_equal_rows(mix):
    # equal rows: the true difference is exactly 0
    _, low, high = simulate(mix)
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.92 <= covered <= 0.98


def test_95_percent_intervals_cover_at_thirty_cycles():
    _, low, high = simulate(MIXES["all"], movies=100, cycles=30)
    assert 0.92 <= ((low <= 0) & (high >= 0)).mean() <= 0.98


def test_95_percent_intervals_cover_two_different_rows():
    estimate, low, high = simulate(MIXES["cycles and movies"], skills=(1.0, 0.9))
    true = estimate.mean()  # over 400 repetitions: known twenty times better than by one
    assert true > 0.01
    assert 0.92 <= ((low <= true) & (high >= true)).mean() <= 0.98


def gaussian(rng, true, by_cycle, by_movie, by_both, shared=0.0, draws=200):
    """Points (C, J) and draws (B, C, J) of J differences with known chance."""

    def noise(sd, *shape):
        common = np.sqrt(shared) * rng.standard_normal((*shape, 1))
        return sd * (common + np.sqrt(1 - shared) * rng.standard_normal((*shape, len(true))))

    points = true + noise(by_cycle, CYCLES) + noise(by_movie) + noise(by_both, CYCLES)
    resampled = points + noise(by_movie, draws, 1) + noise(by_both, draws, CYCLES)
    return points, resampled


@pytest.mark.parametrize("true", [np.zeros(4), np.array([0.0, 1, 2, 3])], ids=["ties", "spread"])
def test_the_smallest_of_several_differences_is_covered(true):
    rng = np.random.default_rng(1)
    found = [smallest(two_way(*gaussian(rng, true, 0.5, 0.5, 0.5))) for _ in range(500)]
    covered = np.mean([i.low <= true.min() <= i.high for i in found])
    assert covered >= 0.93  # conservative by design


@pytest.mark.parametrize("shared", [0.0, 0.3])
@pytest.mark.parametrize(
    "true",
    [np.zeros(23), np.linspace(-1.2, 1.2, 23), np.linspace(-0.3, 0.6, 23), np.full(23, 0.6)],
    ids=["ties", "spread", "mild", "ahead"],
)
def test_the_expected_count_of_wins_is_covered(true, shared):
    rng = np.random.default_rng(2)
    expected = stats.norm.cdf(true / np.sqrt(0.4**2 + (0.5**2 + 0.4**2) / CYCLES)).sum()
    found = [wins(*gaussian(rng, true, 0.5, 0.4, 0.4, shared)) for _ in range(300)]
    assert np.mean([i.low <= expected <= i.high for i in found]) >= 0.92


def test_wins_count_what_is_above_zero():
    points = np.tile([0.1, -0.1, 0.0, 0.2], (5, 1))
    won = wins(points, np.repeat(points[None], 20, axis=0))
    assert (won.estimate, won.low, won.high) == (2, 2, 2)
