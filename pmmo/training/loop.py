"""One cycle of training and testing: the only loop over epochs and batches in the project."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor

from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes, System
from pmmo.training.device import cuda_devices
from pmmo.training.epoch_predictions import EpochPredictions
from pmmo.training.evaluation import final_predictions, genre_scores, predict_cycles, scores
from pmmo.training.stacking import build_together

GLANCE = 512  # training movies scored in each epoch, at most; 2,608 would cost 4 % of it

Report = Callable[[int, int, float], None]  # (cycle, epoch from 1, dev weighted F1)
Splits = Mapping[str, Batch]  # train, dev, test


class Summary(TypedDict):
    """Of one cycle: F-scores by average, and by genre."""

    cycle: int
    seed: int
    best_epoch: int  # from 1
    dev: dict[str, float]
    test: dict[str, float]
    dev_per_genre: list[float]
    test_per_genre: list[float]


@dataclass(frozen=True)
class Cycle:
    """What one cycle leaves behind; tensors are on the CPU."""

    summary: Summary
    curves: list[dict[str, float]]  # one row per epoch
    predictions: dict[str, Tensor]
    protocols: dict[str, Tensor]  # of `EpochPredictions`; empty unless `epoch_predictions` is set
    state: dict[str, Tensor]  # the kept epoch's parameters and buffers
    seconds_per_epoch: float  # median, training steps only (departure D28)


def sizes_of(splits: Splits) -> Sizes:
    train = splits["train"]
    return Sizes(train.text.shape[1], train.image.shape[1], train.genres.shape[1], len(train.text))


def batches(movies: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """A permutation of the movies, cut into row numbers (B,) of batches of at most `batch_size`.

    The parts are equal within one movie: batch norm then has enough movies in each batch, and each
    batch stands for the same share of the training set (departure D18).
    """
    order = torch.randperm(movies, generator=generator, device=generator.device)
    return list(order.tensor_split(-(-movies // batch_size)))


def by_cycle(parts: Sequence[Tensor]) -> Tensor:
    """Row numbers (C, B) of a batch of each of C cycles, or (B,) of one cycle."""
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0]


def train_epoch(
    system: System, train: Batch, epoch: int, generators: Sequence[torch.Generator]
) -> list[dict[str, float]]:
    """One pass over the training set: the mean of each loss term over the batches, by cycle.

    There is one generator for each cycle that `system` trains, for the order of its movies. For C
    cycles a batch is (C, B, ...) and a loss term (C,).
    """
    system.train()
    sums: dict[str, Tensor | float] = {}
    orders = [batches(len(train.text), system.settings.batch_size, g) for g in generators]
    for parts in zip(*orders, strict=True):
        rows = by_cycle(parts)
        batch = Batch(*(column[rows] for column in train))
        terms = system.train_step(batch, epoch)
        for name, value in terms.items():
            value = value.detach() if isinstance(value, Tensor) else value
            sums[name] = sums.get(name, 0.0) + value
    steps, cycles = len(orders[0]), len(generators)
    means = {
        name: (torch.as_tensor(value, dtype=torch.float64) / steps).expand(cycles).tolist()
        for name, value in sums.items()
    }
    return [{name: values[cycle] for name, values in means.items()} for cycle in range(cycles)]


def train_cycle(
    settings: Settings, splits: Splits, cycle: int, report: Report | None = None
) -> Cycle:
    """`train_cycles` of one."""
    return train_cycles(settings, splits, [cycle], report)[0]


def train_cycles(
    settings: Settings,
    splits: Splits,
    cycles: Sequence[int],
    report: Report | None = None,
) -> list[Cycle]:
    """Train on "train", keep the best epoch by weighted F1 on "dev", score "test" once.

    `splits` holds (text, image, genres) of the three sets on one device. Several cycles take their
    steps together, as one system with a leading axis (`pmmo.training.stacking`). Everything random
    in a cycle comes from `settings.seed + cycle` (departure D32), so training cycles together
    changes results only by rounding. The global generators are left as they were found. Raises
    PmmoError when a loss stops being finite.
    """
    device = splits["train"].text.device
    with torch.random.fork_rng(cuda_devices(device)):
        seeds = [settings.seed + cycle for cycle in cycles]
        build = partial(build_system, settings, sizes_of(splits))
        body, systems = build_together(build, seeds, device)
        courses = [Course(own, splits, c) for own, c in zip(systems, cycles, strict=True)]
        orders = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        dev = splits["dev"]
        glance = Batch(*(column[: min(GLANCE, len(dev.text))] for column in splits["train"]))  # D35
        for epoch in range(settings.epochs):
            start = time.perf_counter()
            losses = train_epoch(body, splits["train"], epoch, orders)
            seconds = (time.perf_counter() - start) / len(courses)
            dev_f1, train_f1 = (epoch_scores(body, systems, x, seeds) for x in (dev, glance))
            for course, *own in zip(courses, losses, dev_f1, train_f1, strict=True):
                weighted = course.take_down(epoch, seconds, *own)
                if report is not None:
                    report(course.cycle, epoch + 1, weighted)
        return [course.finish() for course in courses]


def epoch_scores(
    body: System, systems: Sequence[System], movies: Batch, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """The four F-scores of each cycle's system on some movies; `body` is their stack."""
    found = predict_cycles(body, systems, movies.text, movies.image, seeds)
    return [scores(own, movies.genres, body.settings.threshold) for own in found]


class Course:
    """One cycle on its way: its system, its curves and the best epoch so far."""

    def __init__(self, system: System, splits: Splits, cycle: int) -> None:
        self.system, self.splits, self.cycle = system, splits, cycle
        self.settings, self.seed = system.settings, system.settings.seed + cycle
        self.curves: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.best_f1, self.best_epoch = -1.0, 0
        self.state: dict[str, Tensor] = {}
        test = splits["test"]
        self.aside = EpochPredictions(system, test.text, test.image, self.seed)

    def take_down(
        self,
        epoch: int,
        seconds: float,
        losses: dict[str, float],
        dev_f1: dict[str, float],
        train_f1: dict[str, float],
    ) -> float:
        """An epoch's losses and scores; keep its parameters if they are the best so far.

        Returns the weighted F1 on dev.
        """
        settings = self.settings
        if not math.isfinite(losses["loss"]):
            raise PmmoError(
                f"{settings.name}, cycle {self.cycle}: the loss is {losses['loss']} in epoch "
                f"{epoch + 1}; lower learning_rate or the KL and penalty weights"
            )
        self.seconds.append(seconds)
        self.curves.append(
            {
                "cycle": self.cycle,
                "epoch": epoch + 1,
                **{f"dev_{name}": value for name, value in dev_f1.items()},
                "train_weighted": train_f1["weighted"],
                **losses,
            }
        )
        # departure D21; where dev has not yet told two epochs apart, the later one
        alike = all(line["dev_weighted"] == dev_f1["weighted"] for line in self.curves)
        if settings.kept_epoch == "last" or alike or dev_f1["weighted"] > self.best_f1:
            self.best_f1, self.best_epoch = dev_f1["weighted"], epoch + 1
            self.state = {name: value.clone() for name, value in self.system.state_dict().items()}
        if settings.epoch_predictions:
            self.aside.add()
        return dev_f1["weighted"]

    def finish(self) -> Cycle:
        """Predictions and scores of the kept epoch."""
        self.system.load_state_dict(self.state)
        train, dev, test = (self.splits[name] for name in ("train", "dev", "test"))
        predictions = final_predictions(
            self.system,
            {"dev": (dev.text, dev.image), "test": (test.text, test.image)},
            means=(train.text.mean(0), train.image.mean(0)),
            seed=self.seed,
        )
        summary: dict[str, Any] = {
            "cycle": self.cycle,
            "seed": self.seed,
            "best_epoch": self.best_epoch,
        }
        for suffix, score in (("", scores), ("_per_genre", genre_scores)):
            for name in ("dev", "test"):
                genres = self.splits[name].genres.cpu()
                summary[name + suffix] = score(predictions[name], genres, self.settings.threshold)
        return Cycle(
            summary=summary,
            curves=self.curves,
            predictions=predictions,
            protocols=self.aside.finish() if self.settings.epoch_predictions else {},
            state={name: value.cpu() for name, value in self.state.items()},
            seconds_per_epoch=sorted(self.seconds)[len(self.seconds) // 2],
        )
