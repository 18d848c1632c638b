"""One cycle of training and testing: the only loop over epochs and batches in the project."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pmmo.errors import PmmoError
from pmmo.evaluation import final_predictions, genre_scores, own_samples, predict, scores
from pmmo.released import Released
from pmmo.settings import Settings
from pmmo.systems import Batch, Gmu, Mmo, Pmmo, Sizes, System

SYSTEM_CLASSES = {"gmu": Gmu, "mmo": Mmo, "pmmo": Pmmo, "released": Released}
TERMS = ("loss", "loss_a", "log_likelihood", "kl", "kl_factor", "penalty", "loss_c")

Report = Callable[[int, float], None]  # (epoch from 1, dev weighted F1)


@dataclass(frozen=True)
class Cycle:
    """What one cycle leaves behind; tensors are on the CPU."""

    summary: dict[str, object]  # cycle, seed, best_epoch, dev, test, dev_per_genre, …
    curves: list[dict[str, float]]  # one row per epoch
    predictions: dict[str, Tensor]
    state: dict[str, Tensor]  # the kept epoch's parameters and buffers
    seconds_per_epoch: float  # median, training steps only (departure D28)


def build_system(settings: Settings, sizes: Sizes) -> System:
    """A freshly initialised system; its weights come from torch's global generator."""
    return SYSTEM_CLASSES[settings.system](settings, sizes)


def sizes_of(splits: Mapping[str, Batch]) -> Sizes:
    train = splits["train"]
    return Sizes(train.text.shape[1], train.image.shape[1], train.genres.shape[1], len(train.text))


def batches(movies: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """A permutation of the movies cut into batches of at most `batch_size`, equal within one.

    Equal parts rather than a short last batch: batch norm needs company, and every batch then
    stands for the same share of the training set (departure D18).
    """
    order = torch.randperm(movies, generator=generator, device=generator.device)
    return list(order.tensor_split(-(-movies // batch_size)))


def train_epoch(
    system: System, train: Batch, epoch: int, generator: torch.Generator
) -> dict[str, float]:
    """One pass over the training set; the mean of each loss term over its batches."""
    system.train()
    totals: dict[str, Tensor | float] = {}
    parts = batches(len(train.text), system.settings.batch_size, generator)
    for rows in parts:
        terms = system.train_step(Batch(*(column[rows] for column in train)), epoch)
        for name, value in terms.items():
            value = value.detach() if isinstance(value, Tensor) else value
            totals[name] = totals.get(name, 0.0) + value
    return {name: float(total) / len(parts) for name, total in totals.items()}


def train_cycle(
    settings: Settings, splits: Mapping[str, Batch], cycle: int, report: Report | None = None
) -> Cycle:
    """Train on "train", keep the best epoch by weighted F1 on "dev", score "test" once.

    `splits` holds (text, image, genres) of the three sets on one device. Everything random comes
    from `settings.seed + cycle` (departure D32); the global generators are left as they were found.
    Raises PmmoError when the loss stops being finite.
    """
    seed = settings.seed + cycle
    device = splits["train"].text.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        system = build_system(settings, sizes_of(splits)).to(device)
        return _train(system, splits, cycle, seed, report)


def _train(
    system: System,
    splits: Mapping[str, Batch],
    cycle: int,
    seed: int,
    report: Report | None,
) -> Cycle:
    settings, (train, dev, test) = system.settings, (splits[k] for k in ("train", "dev", "test"))
    order = torch.Generator(train.text.device).manual_seed(seed)
    # for the training score: as many movies as dev has (departure D35)
    glance = Batch(*(column[: len(dev.text)] for column in train))
    samples = own_samples(system)
    curves, seconds = [], []
    best_f1, best_epoch, state = -1.0, 0, {}
    for epoch in range(settings.epochs):
        start = time.perf_counter()
        losses = train_epoch(system, train, epoch, order)
        seconds.append(time.perf_counter() - start)
        if not torch.isfinite(torch.tensor(losses["loss"])):
            raise PmmoError(
                f"{settings.name}, cycle {cycle}: the loss is {losses['loss']} in epoch "
                f"{epoch + 1}; lower learning_rate or the KL and penalty weights"
            )
        on_dev, _ = predict(system, dev.text, dev.image, samples=samples, seed=seed)
        on_train, _ = predict(system, glance.text, glance.image, samples=samples, seed=seed)
        dev_f1 = scores(on_dev, dev.genres, settings.threshold)
        train_f1 = scores(on_train, glance.genres, settings.threshold)["weighted"]
        curves.append(
            {
                "cycle": cycle,
                "epoch": epoch + 1,
                **{f"dev_{name}": value for name, value in dev_f1.items()},
                "train_weighted": train_f1,
                **losses,
            }
        )
        # departure D21
        if settings.kept_epoch == "last" or dev_f1["weighted"] > best_f1:
            best_f1, best_epoch = dev_f1["weighted"], epoch + 1
            state = {name: value.clone() for name, value in system.state_dict().items()}
        if report is not None:
            report(epoch + 1, dev_f1["weighted"])
    system.load_state_dict(state)
    predictions = final_predictions(
        system,
        {"dev": (dev.text, dev.image), "test": (test.text, test.image)},
        means=(train.text.mean(0), train.image.mean(0)),
        seed=seed,
    )
    summary = {
        "cycle": cycle,
        "seed": seed,
        "best_epoch": best_epoch,
        **{
            name: scores(predictions[name], splits[name].genres, settings.threshold)
            for name in ("dev", "test")
        },
        **{
            f"{name}_per_genre": genre_scores(
                predictions[name], splits[name].genres, settings.threshold
            )
            for name in ("dev", "test")
        },
    }
    return Cycle(
        summary=summary,
        curves=curves,
        predictions=predictions,
        state={name: value.cpu() for name, value in state.items()},
        seconds_per_epoch=sorted(seconds)[len(seconds) // 2],
    )
