"""What a protocol is worth: habits of published scores, replayed on this project's own rows.

A habit changes one thing in how a row is trained, chosen or scored (docs/published.md says who has
which). Its inflation is the weighted F1 on test with the habit minus the one without, of the same
cycles on the same movies; nothing of it is ever used to choose. docs/protocols.md has the habits
and their intervals. Shapes: B draws, C cycles, E epochs, N test movies, G genres.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from typing import Any

import numpy as np
from scipy import stats

from pmmo.analysis.intervals import (
    WEIGHTED,
    Interval,
    deviation_factors,
    f1_draws,
    resample,
    two_way,
)
from pmmo.analysis.post_hoc import ROWS
from pmmo.analysis.run_reader import Movies, Run
from pmmo.core.names import AVERAGES

ON_DEV = {"gmu": "gmu-train-dev", "mmo": "mmo-train-dev", "pmmo-kl-l2": "pmmo-train-dev"}
# settings that may differ
OWN = ("name", "label", "train_on", "kept_epoch", "epoch_predictions", "keep_models")
LOW = 0.3  # the threshold of several published programs
THRESHOLDS = (np.arange(1, 20) / 20).tolist()  # 0.05, 0.1, ... 0.95: among them one is chosen
NEWS = "news"  # the genre whose movies a published filter drops
DOES_NOT_APPLY, NOT_RUN, NOT_STORED = "does not apply", "not run", "not stored"


class NoReplay(Exception):
    """A habit that cannot be replayed on a row: what to say, and why."""

    def __init__(self, word: str, why: str) -> None:
        super().__init__(word, why)
        self.word, self.why = word, why


@dataclass(frozen=True)
class Replay:
    """A row with all that its habits need."""

    run: Run
    on_dev: Run | None  # the same system, trained on train and dev
    movies: Movies
    weights: np.ndarray  # (1 + B, N) each movie once, then how often each resampling has it
    level: float

    @property
    def truth(self) -> np.ndarray:
        """(N, G)."""
        return self.movies.truth("test")

    @cached_property
    def decided(self) -> np.ndarray:
        """The row as it is reported: (C, N, G) 0/1."""
        return self.run.probabilities("test") > self.run.threshold

    @cached_property
    def plain(self) -> np.ndarray:
        """Its weighted F1, (1 + B, C)."""
        return self.weighted(self.decided)

    def weighted(self, decided: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
        """Weighted F1 (1 + B, C) of decisions (C, N, G), on all movies or those in `kept` (N,)."""
        weights = self.weights if kept is None else self.weights * kept
        return f1_draws(weights, self.truth, decided)[:, :, WEIGHTED]

    def best(self, candidates: Iterable[np.ndarray]) -> np.ndarray:
        """The highest weighted F1 (1 + B, C) of candidates (C, N, G), chosen on test by cycle.

        It is chosen anew on each resampling: other movies would choose others.
        """
        return reduce(np.maximum, map(self.weighted, candidates))

    def gain(self, habit: np.ndarray, base: np.ndarray | None = None) -> Interval:
        """The paired difference to the row as it is, with the interval of the claims."""
        gaps = habit - (self.plain if base is None else base)  # (1 + B, C)
        return two_way(gaps[0], gaps[1:]).interval(self.level)

    def epochs(self, run: Run | None = None) -> np.ndarray:
        """Test probabilities of each epoch of the row, or of `run`: (E, C, N, G)."""
        run = run or self.run
        found = run.replayed("test_epochs")
        if found is None:
            why = f"{run.name} did not store the test probabilities of each epoch"
            raise NoReplay(NOT_STORED, why)
        return found.swapaxes(0, 1)

    def sibling(self) -> Run:
        """The row on train and dev, if nothing but that differs."""
        if self.on_dev is None:
            raise NoReplay(NOT_RUN, f"no row {ON_DEV[self.run.name]} in params.yaml")
        ours, theirs = self.run.settings, self.on_dev.settings
        keys = [key for key in ours if key not in OWN and ours[key] != theirs.get(key)]
        if keys or not self.on_dev.trains_on_dev:
            why = f"{self.on_dev.name} has another {', '.join(keys) or 'train_on'} than the row"
            raise NoReplay(DOES_NOT_APPLY, why)
        return self.on_dev


# ---- the habits ----


def epoch_on_test(replay: Replay) -> Interval:
    threshold = replay.run.threshold
    return replay.gain(replay.best(p > threshold for p in replay.epochs()))


def train_on_dev(replay: Replay) -> Interval:
    """Of the epoch that the same seed chose on dev when dev was not trained on."""
    epochs = replay.epochs(replay.sibling())  # (E, C, N, G)
    kept = [epochs[c.best_epoch - 1, place] for place, c in enumerate(replay.run.cycles)]
    return replay.gain(replay.weighted(np.stack(kept) > replay.run.threshold))


def low_threshold(replay: Replay) -> Interval:
    if replay.run.threshold == LOW:
        raise NoReplay(DOES_NOT_APPLY, f"{LOW:g} is the row's own threshold")
    return replay.gain(replay.weighted(replay.run.probabilities("test") > LOW))


def threshold_on_test(replay: Replay) -> Interval:
    probabilities = replay.run.probabilities("test")
    candidates = dict.fromkeys((replay.run.threshold, *THRESHOLDS))
    return replay.gain(replay.best(probabilities > threshold for threshold in candidates))


def undefined_as_one(replay: Replay) -> Interval:
    """Of the macro F1: to the weighted F1 a genre without movies adds nothing, 0 or 1."""
    either = replay.decided | (replay.truth > 0)  # (C, N, G)
    if either.any(axis=1).all():
        raise NoReplay(DOES_NOT_APPLY, "every genre is true or predicted somewhere in test")
    defined = np.tensordot(replay.weights, either.astype(np.float32), (1, 1)) > 0  # (1 + B, C, G)
    f1 = f1_draws(replay.weights, replay.truth, replay.decided)
    by_genre = f1[:, :, len(AVERAGES) :]  # 0 where it is not defined
    habit = np.where(defined, by_genre, 1).mean(axis=-1)
    return replay.gain(habit, f1[:, :, AVERAGES.index("macro")])


def movies_dropped(replay: Replay) -> Interval:
    """Test movies of the genre News, or with a genre that no training movie has."""
    news = np.array([genre.strip().casefold() == NEWS for genre in replay.movies.genres])
    unseen = replay.movies.truth("train").sum(axis=0) == 0  # (G,)
    kept = replay.truth[:, news | unseen].sum(axis=1) == 0  # (N,)
    if kept.all():
        raise NoReplay(DOES_NOT_APPLY, "no test movie has the genre News or one unseen in training")
    if not kept.any():
        raise NoReplay(DOES_NOT_APPLY, "no test movie would be left")
    return replay.gain(replay.weighted(replay.decided, kept))


def best_seed(replay: Replay) -> Interval:
    """The best cycle minus their mean. The interval is of its expectation over other seeds.

    Of C normal scores that is the standard deviation times a constant.
    """
    points = replay.plain[0]  # (C,)
    count = len(points)
    if count == 1:
        raise NoReplay(DOES_NOT_APPLY, "the row has one cycle")
    expected = stats.norm.expect(lambda z: z * count * stats.norm.cdf(z) ** (count - 1))
    low, high = expected * points.std(ddof=1) * deviation_factors(count, replay.level)
    return Interval(float(points.max() - points.mean()), float(low), float(high))


def evaluation_set_statistics(replay: Replay) -> Interval:
    """Batch norm with the statistics of the evaluated set minus batch norm with running ones."""
    if not replay.run.settings.get("batch_norm"):
        raise NoReplay(DOES_NOT_APPLY, "the row has no batch norm")
    other = replay.run.replayed("test_other_statistics")
    if other is None:
        why = f"{replay.run.name} did not store predictions with other batch-norm statistics"
        raise NoReplay(NOT_STORED, why)
    both = replay.plain, replay.weighted(other > replay.run.threshold)
    if replay.run.settings["batch_norm_eval"] == "running":
        both = both[::-1]
    return replay.gain(*both)


def together(replay: Replay) -> Interval:
    """Train and dev, the epoch chosen on test, LOW; counting undefined F1 as 1 adds nothing."""
    return replay.gain(replay.best(p > LOW for p in replay.epochs(replay.sibling())))


HABITS: dict[str, Callable[[Replay], Interval]] = {
    "test-epoch": epoch_on_test,
    "train-dev": train_on_dev,
    "low-threshold": low_threshold,
    "test-threshold": threshold_on_test,
    "undefined-one": undefined_as_one,
    "movies-dropped": movies_dropped,
    "best-seed": best_seed,
    "evaluation-set": evaluation_set_statistics,
    "together": together,
}
OF_MACRO = ("undefined-one",)  # all others are of the weighted F1
HONEST = {  # key -> additions of `post_hoc`, which choose on dev
    "thresholds": ("thresholds",),
    "ensemble": ("ensemble of {cycles}",),
    "both": ("ensemble of {cycles}", "thresholds"),
}


def improvement(key: str, beyond: Sequence[Mapping], replay: Replay) -> Interval:
    """The gain of the additions, from the numbers of `post_hoc.beyond`."""
    name, cycles = replay.run.name, len(replay.run.cycles)
    if cycles == 1 and key != "thresholds":
        raise NoReplay(DOES_NOT_APPLY, "the row has one cycle")
    switches = [switch.format(cycles=cycles) for switch in HONEST[key]]
    options = (e for e in beyond if e["variant"] == name and not e["predict"])
    (found,) = (option for option in options if option["switches"] == switches)
    return Interval(found["gain"], found["low"], found["high"])


def in_words(gain: Callable[[Replay], Interval], replay: Replay) -> dict[str, Any]:
    """An interval as plain values, or the words in its place."""
    try:
        interval = gain(replay)
    except NoReplay as reason:
        return {"word": reason.word, "why": reason.why, "gain": None, "low": None, "high": None}
    return {"word": None, "why": None} | interval.named("gain")


def protocols(
    runs: Mapping[str, Run],
    movies: Movies,
    beyond: Sequence[Mapping],
    level: float,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Each habit, then each honest improvement, on those of the three systems that were run.

    `runs` has all rows, those on train and dev among them; `beyond` is that of `post_hoc`.
    """
    drawn = resample(len(movies.truth("test")), draws, seed)
    weights = np.vstack([np.ones_like(drawn[:1]), drawn])
    replays = [
        Replay(runs[name], runs.get(ON_DEV[name]), movies, weights, level)
        for name in ROWS
        if name in runs
    ]
    gains = HABITS | {key: partial(improvement, key, beyond) for key in HONEST}
    lines = [
        {
            "key": key,
            "honest": key in HONEST,
            "average": "macro" if key in OF_MACRO else "weighted",
            "rows": {replay.run.name: in_words(gain, replay) for replay in replays},
        }
        for key, gain in gains.items()
    ]
    return {"low": LOW, "candidates": len(THRESHOLDS), "habits": lines}
