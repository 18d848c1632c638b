"""Predictions of a trained system: posterior mean or K samples, scores, modality ablation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pmmo.config.settings import Settings
from pmmo.core.names import AVERAGES
from pmmo.model.networks import evaluation_mode
from pmmo.model.systems import System
from pmmo.training.device import cuda_devices


@torch.no_grad()
def predict(
    system: System,
    text: Tensor,
    image: Tensor,
    *,
    samples: int = 0,
    seed: int = 0,
    batch_norm: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Probabilities (N, G) and mean gate (N,), if any, of N movies, evaluated as one set.

    `samples` = 0 takes the weights (or their posterior mean); K > 0 averages the probabilities
    of K posterior draws, seeded apart so that evaluation leaves the training's stream alone.
    `batch_norm` is by default that of the settings.
    """
    with (
        evaluation_mode(system, batch_norm or system.settings.batch_norm_eval),
        torch.random.fork_rng(cuda_devices(text.device)),
    ):
        if not samples:
            probabilities, gate = system.predict(text, image)
            return probabilities, None if gate is None else gate.mean(-1)
        torch.manual_seed(seed)
        draws = [system.predict(text, image, sample=True) for _ in range(samples)]
        probabilities = torch.stack([p for p, _ in draws]).mean(0)  # (N, G)
        gates = [gate.mean(-1) for _, gate in draws if gate is not None]
        return probabilities, torch.stack(gates).mean(0) if gates else None


def predict_cycles(
    body: System, systems: Sequence[System], text: Tensor, image: Tensor, seeds: Sequence[int]
) -> list[Tensor]:
    """The row's own probabilities (N, G) of each system, in one pass of `body`, their stack.

    Posterior draws are made system by system, because each has a seed of its own.
    """
    samples = own_samples(body)
    if samples or len(systems) == 1:
        pairs = zip(systems, seeds, strict=True)
        return [predict(one, text, image, samples=samples, seed=seed)[0] for one, seed in pairs]
    text, image = (x.expand(len(systems), *x.shape) for x in (text, image))  # (C, N, T), (C, N, I)
    return list(predict(body, text, image)[0])


def own_samples(system: System) -> int:
    """How many posterior draws the row's own prediction averages (0: the mean; departure D27)."""
    settings = system.settings
    return settings.posterior_samples if settings.prediction == "samples" else 0


def statistics_of(settings: Settings) -> dict[str, str]:
    """Whose statistics batch norm can take -> what the keys of those predictions end with.

    Running ones are there for all systems: by them a movie's prediction stands alone.
    """
    if settings.batch_norm and settings.batch_norm_eval == "evaluation_set":
        return {"running": "_running", "evaluation_set": ""}
    return {"running": ""}


def decide(probabilities: Tensor, threshold: float) -> Tensor:
    """0/1 decisions (N, G) at one threshold (departure D22)."""
    return (probabilities > threshold).to(torch.uint8)


def scores(probabilities: Tensor, genres: Tensor, threshold: float) -> dict[str, float]:
    """The four F-scores of probabilities (N, G) against genres (N, G).

    From counts on the device: equal to `pmmo.analysis.metrics`, without scikit-learn's checks and
    copies in every epoch. A score whose denominator is 0 is 0.
    """
    decided, true = decide(probabilities, threshold).double(), genres.double()
    per_genre, support = f1(decided, true, 0), true.sum(0)
    found = (
        f1(decided.flatten(), true.flatten(), 0),
        per_genre.mean(),
        (per_genre * support).sum() / support.sum().clamp(min=1),
        f1(decided, true, 1).mean(),
    )
    return dict(zip(AVERAGES, torch.stack(found).tolist(), strict=True))


def genre_scores(probabilities: Tensor, genres: Tensor, threshold: float) -> list[float]:
    """F1 of each genre."""
    return f1(decide(probabilities, threshold).double(), genres.double(), 0).tolist()


def f1(decided: Tensor, true: Tensor, axis: int) -> Tensor:
    """2 |both| / (|decided| + |true|), counted along an axis of 0/1 tensors; 0 for 0/0."""
    both = (decided * true).sum(axis)
    return 2 * both / (decided.sum(axis) + true.sum(axis)).clamp(min=1)


def final_predictions(
    system: System,
    sets: dict[str, tuple[Tensor, Tensor]],
    means: tuple[Tensor, Tensor],
    seed: int,
) -> dict[str, Tensor]:
    """Everything the reports need of one trained cycle, as float32 tensors on the CPU.

    `sets` holds (text, image) of "dev" and "test"; `means` the training means (T,), (I,), which
    replace a column in the ablation. Keys: dev, test (N, G); *_running where those are by the
    statistics of the set; *_samples for systems with a posterior; test_text_mean, test_image_mean
    (N, G); test_gate (N,) for systems with a gate.
    """
    samples = own_samples(system)
    found: dict[str, Tensor] = {}
    for name, (text, image) in sets.items():
        found[name], gate = predict(system, text, image, samples=samples, seed=seed)
        if suffix := statistics_of(system.settings)["running"]:
            found[f"{name}{suffix}"], _ = predict(
                system, text, image, samples=samples, seed=seed, batch_norm="running"
            )
        if system.settings.posterior_samples:
            found[f"{name}_samples"], _ = predict(
                system, text, image, samples=system.settings.posterior_samples, seed=seed
            )
    text, image = sets["test"]
    if gate is not None:
        found["test_gate"] = gate
    no_text, no_image = means[0].expand_as(text), means[1].expand_as(image)
    found["test_text_mean"], _ = predict(system, no_text, image, samples=samples, seed=seed)
    found["test_image_mean"], _ = predict(system, text, no_image, samples=samples, seed=seed)
    return {name: value.float().cpu().contiguous() for name, value in found.items()}
