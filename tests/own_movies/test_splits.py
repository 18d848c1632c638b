"""Splits that keep each genre's share, against proportions and against a random draw."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmmo.core.names import SPLITS
from pmmo.own_movies.catalogue import split_sizes
from pmmo.own_movies.splits import random_splits, stratified_splits

SHARES = (0.6, 0.1, 0.3)


def distances(genres, splits) -> list[float]:
    """Of each genre and split: how far its number of movies is from its share, in movies."""
    sizes, total = Counter(splits), Counter(name for names in genres for name in names)
    found = Counter(
        (name, split) for names, split in zip(genres, splits, strict=True) for name in names
    )
    return [
        abs(found[name, split] - count * sizes[split] / len(genres))
        for name, count in total.items()
        for split in SPLITS
    ]


def movies(count: int, genres: int, seed: int) -> list[frozenset[str]]:
    """Rare and frequent genres; some movies have none."""
    rng = np.random.default_rng(seed)
    rates = 0.5 / np.arange(1, genres + 1)
    return [
        frozenset(f"g{k}" for k in np.flatnonzero(row))
        for row in rng.random((count, genres)) < rates
    ]


@pytest.mark.parametrize("seed", range(3))
def test_each_genre_has_its_share_of_each_split(seed):
    genres, sizes = movies(1000, 12, seed), split_sizes(1000, SHARES)
    drawn = distances(genres, stratified_splits(genres, sizes, seed))
    at_random = distances(genres, random_splits(sizes, seed))
    assert max(drawn) <= 2
    assert max(at_random) > 5
    assert np.mean(drawn) < np.mean(at_random) / 5


def test_a_genre_of_one_movie_is_learned_and_one_of_two_is_tested_too():
    common = [frozenset({"common"})] * 58
    for seed in range(5):
        splits = stratified_splits([*common, frozenset({"a"}), frozenset({"b"})], (36, 6, 18), seed)
        assert splits[-2:] == ["train", "train"]
        pair = [frozenset({"a", "common"})] * 2
        splits = stratified_splits([*common, *pair], (36, 6, 18), seed)
        assert sorted(splits[-2:]) == ["test", "train"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.frozensets(st.sampled_from("abcde")), min_size=6, max_size=60),
    st.integers(0, 9),
    st.sampled_from([SHARES, (0.5, 0.25, 0.25), (0.98, 0.01, 0.01)]),
)
def test_any_movies_fill_the_sizes_exactly_and_the_seed_decides(genres, seed, shares):
    sizes = split_sizes(len(genres), shares)
    splits = stratified_splits(genres, sizes, seed)
    assert [Counter(splits)[name] for name in SPLITS] == list(sizes)
    assert splits == stratified_splits(genres, sizes, seed)
    assert sum(sizes) == len(genres)
    assert min(sizes) >= 2
