"""Draw train, dev and test: each genre in its share of each, or without regard to genres."""

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pmmo.core.names import SPLITS
from pmmo.own_movies.genre_cells import count_genres


def random_splits(sizes: Sequence[int], seed: int) -> list[str]:
    """The split of each movie, drawn without regard to genres; `sizes` are those of SPLITS."""
    return np.random.default_rng(seed).permutation(np.repeat(SPLITS, sizes)).tolist()


def stratified_splits(
    genres: Sequence[frozenset[str]], sizes: Sequence[int], seed: int
) -> list[str]:
    """The split of each movie, such that each genre has about its share of each split.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): again and again the genre with
    the fewest movies left gives one to the split that lacks most movies of it. `sizes` are kept
    exactly. Own code, because scikit-multilearn, which has the method, is no longer maintained.
    """
    order = np.random.default_rng(seed).permutation(len(genres)).tolist()
    left = count_genres(genres)  # movies without a split
    room = list(sizes)
    wanted = {name: [count * s / len(genres) for s in sizes] for name, count in left.items()}
    members: dict[str, list[int]] = defaultdict(list)
    for movie in order:
        for name in genres[movie]:
            members[name].append(movie)
    chosen: dict[int, int] = {}

    def choose(movie: int, lacking: Sequence[float]) -> None:
        place = max((s for s in range(len(room)) if room[s]), key=lambda s: (lacking[s], room[s]))
        chosen[movie] = place
        room[place] -= 1
        for name in sorted(genres[movie]):
            wanted[name][place] -= 1
            left[name] -= 1
            heapq.heappush(rarest, (left[name], name))

    rarest = [(count, name) for name, count in left.items()]
    heapq.heapify(rarest)
    while rarest:
        count, name = heapq.heappop(rarest)
        if count == 0 or count != left[name]:
            continue  # an entry from before another genre gave its movies
        while (movie := members[name].pop()) in chosen:
            pass
        choose(movie, wanted[name])
    for movie in order:
        if movie not in chosen:  # it has no genre
            choose(movie, room)
    return [SPLITS[chosen[movie]] for movie in range(len(genres))]
