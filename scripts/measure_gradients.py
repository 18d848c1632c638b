"""Measure the standard deviation of module A's gradients, ELBOv1 and ELBOv2; prints Markdown.

    python -m scripts.measure_gradients
    python -m scripts.measure_gradients --scale paper --data FOLDER --epochs 5

One batch is kept and the weights are drawn many times, so only the draw varies. The gradients are
those of the loss per movie. Each number is the square root of the mean over the weights of the
variance over the draws.
"""

from typing import Any

import torch
from torch import Tensor

from pmmo.benchmark.tables import grid
from pmmo.model.objectives import closed_form_kl, kl_temperature, log_likelihood, sampled_kl
from pmmo.model.systems import Batch
from scripts.probe import arguments, begin, learned, load, module_a, row, traces, train

KINDS = {"loc": "location", "log_scale": "log-scale"}
DRAWS = 200


class Moments:
    """Running mean and variance of a tensor (Welford's algorithm)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, value: Tensor) -> None:
        self.count += 1
        difference = value - self.mean
        self.mean = self.mean + difference / self.count
        self.squares = self.squares + difference * (value - self.mean)

    def variance(self) -> Tensor:
        return self.squares / (self.count - 1)

    def spread(self) -> float:
        return self.variance().mean().sqrt().item()


def gradient(value: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(value.sum(), parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def measure(system: Any, batch: Batch, draws: int) -> dict[tuple[str, str], Moments]:
    """(kind, part) -> moments; parts: likelihood, KL (v1, v2), whole loss (v1, v2, both k)."""
    movies = system.sizes.movies
    per_weight = kl_temperature("per_weight", movies, system.fusion.random_weights)
    found: dict[tuple[str, str], Moments] = {}
    fusion = module_a(system)
    for _ in range(draws):
        guide, model = traces(system, fusion, batch)
        values = {
            "likelihood": -log_likelihood(model) / movies,
            "v1": sampled_kl(guide, model) / movies,
            "v2": closed_form_kl(guide, model) / movies,
        }
        for kind in KINDS:
            parameters = learned(fusion, kind)
            parts = {name: gradient(value, parameters) for name, value in values.items()}
            for elbo in ("v1", "v2"):
                for k, name in ((per_weight, "per weight"), (1.0, "exact")):
                    parts[f"{elbo}, {name}"] = parts["likelihood"] + k * parts[elbo]
            for name, value in parts.items():
                found.setdefault((kind, name), Moments()).add(value)
    return found


def number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2e}"


def rows(when: str, found: dict[tuple[str, str], Moments], k: float) -> list[list[str]]:
    lines = []
    for kind, label in KINDS.items():
        for elbo in ("v1", "v2"):
            spread = found[kind, elbo].spread()
            lines.append(
                [
                    f"{when}, {label}, ELBO{elbo}",
                    number(found[kind, "likelihood"].spread()),
                    number(k * spread),
                    number(found[kind, f"{elbo}, per weight"].spread()),
                    number(spread),
                    number(found[kind, f"{elbo}, exact"].spread()),
                ]
            )
    return lines


def agreement(found: dict[tuple[str, str], Moments]) -> float:
    """Distance of the mean KL gradients of v1 and v2 over its expectation if they are equal."""
    distance = chance = 0.0
    for kind in KINDS:
        v1, v2 = found[kind, "v1"], found[kind, "v2"]
        distance += (v1.mean - v2.mean).square().sum().item()
        chance += ((v1.variance() + v2.variance()) / v1.count).sum().item()
    return (distance / chance) ** 0.5


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    given = parser.parse_args()
    splits = load(given.data)
    system = begin(row("pmmo-kl-l2", given.scale, given.epochs), splits)
    settings = system.settings
    batch = Batch(*(column[: settings.batch_size] for column in splits["train"]))
    k = kl_temperature("per_weight", system.sizes.movies, system.fusion.random_weights)
    lines: list[list[str]] = []
    checks = []
    for when in ("at the start", f"after {settings.epochs} epochs"):
        if lines:
            for epoch in range(settings.epochs):
                train(system, splits, epoch)
        system.train()
        found = measure(system, batch, given.draws)
        lines += rows(when, found, k)
        checks.append(f"{when} {agreement(found):.2f}")
    head = ["", "likelihood", "KL, k = N/P", "sum, k = N/P", "KL, k = 1", "sum, k = 1"]
    print(grid(head, lines, 1))
    print(
        f"\nN = {system.sizes.movies}, batch {len(batch.text)}, H = {settings.width}, P = "
        f"{system.fusion.random_weights:,}, N/P = {k:.2e}, {given.draws} draws. Distance of the "
        "mean KL gradients of v1 and v2 over the distance that chance alone gives: "
        f"{', '.join(checks)}."
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
