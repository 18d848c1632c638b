"""Show why the text taken literally does not learn: nats of KL and of data; prints Markdown.

    python -m scripts.explain_literal
    python -m scripts.explain_literal --scale paper --data FOLDER --epochs 5

Trains `pmmo-literal`, the same variant with ELBOv2's closed-form KL term, and the working reading
for one cycle each, and measures them at some epochs.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from scipy.optimize import brentq
from torch.distributions import kl_divergence

from pmmo.benchmark.tables import grid
from pmmo.model.networks import LAYERS, evaluation_mode, layer_shapes
from pmmo.model.objectives import log_likelihood
from pmmo.published.mmimdb import GENRE_COUNTS, IMAGE_WIDTH, ROWS, SPLITS, TEXT_WIDTH
from pmmo.training.evaluation import predict, scores
from pmmo.training.loop import Splits
from scripts.probe import arguments, begin, load, row, traces, train

READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "literal": ("pmmo-literal", {}),
    "literal, ELBOv2": ("pmmo-literal", {"elbo": "v2"}),
    "working": ("pmmo-kl-l2", {}),
}
LOOKS = (0, 1, 2, 5, 10, 20)  # epochs
DRAWS = 5  # draws for the expected log-likelihood


@torch.no_grad()
def look(system: Any, splits: Splits) -> dict[str, float]:
    """Training KL and log-likelihood, distance from the prior, directions of z, dev F1."""
    train_set, found = splits["train"], dict.fromkeys(LAYERS, 0.0)
    with evaluation_mode(system, "evaluation_set"), torch.random.fork_rng():
        likelihoods = []
        for _ in range(DRAWS):
            guide, model = traces(system, system.fusion, train_set)
            likelihoods.append(log_likelihood(model).sum().item())
        mean = system.fusion.guide.mean()
        text, image = system.inputs(train_set.text, train_set.image)
        z = system.fusion(mean, text, image).z.flatten(0, -2)  # (N, H)
        on_dev, _ = predict(system, splits["dev"].text, splits["dev"].image)
    moved, count = 0.0, 0
    for name in mean:
        q, p = guide.nodes[name]["fn"], model.nodes[name]["fn"]
        layer = name.split(".")[0]
        found[layer] += kl_divergence(q, p).sum().item()
        difference = mean[name] - system.fusion.prior.distribution(name).loc
        moved += difference.abs().sum().item()
        count += difference.numel()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(z.T).double()).clamp(min=0)
    return found | {
        "kl": sum(found[layer] for layer in LAYERS),
        "likelihood": sum(likelihoods) / DRAWS,
        "moved": moved / count,
        "directions": (eigenvalues.sum() ** 2 / eigenvalues.square().sum()).item(),
        "f1": scores(on_dev, splits["dev"].genres, system.settings.threshold)["weighted"],
    }


def nats(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


def follow(name: str, splits: Splits, scale: str, epochs: int | None) -> list[list[str]]:
    variant, changes = READINGS[name]
    system = begin(replace(row(variant, scale, epochs), **changes), splits)
    last, rows = system.settings.epochs, []
    for epoch in range(last + 1):
        if epoch:
            train(system, splits, epoch - 1)
        if epoch not in LOOKS and epoch != last:
            continue
        found = look(system, splits)
        rows.append(
            [
                name,
                str(epoch),
                *(nats(found[layer]) for layer in (*LAYERS, "kl", "likelihood")),
                f"{found['moved']:.4f}",
                f"{found['directions']:.1f}",
                f"{found['f1']:.3f}",
            ]
        )
    return rows


def entropy(rates: list[float]) -> float:
    """Entropy in nats per movie of independent genres with these rates."""
    return -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in rates)


def by_hand() -> str:
    """The same quantities at the paper's sizes, from counts alone."""
    hidden, scale, loc = 3000, 0.01, 0.1
    shapes = layer_shapes(TEXT_WIDTH, IMAGE_WIDTH, hidden, "outputs").values()
    weights = sum(math.prod(shape) for shape in shapes)
    movies = SPLITS["train"][1]
    rates = [count / ROWS for count in GENRE_COUNTS.values()]
    data = movies * entropy(rates)

    def kl(distance: float) -> float:  # Laplace(mu + distance, b) from Laplace(mu, b)
        return distance / scale + math.exp(-distance / scale) - 1

    budget = data / weights
    distance = brentq(lambda d: kl(d) - budget, 0.0, 1.0, xtol=1e-9)
    lines = [
        f"random weights: {weights:,}",
        f"knowing the genres' rates and nothing else: {entropy(rates):.2f} nats a movie, "
        f"{data:,.0f} for {movies:,} training movies",
        f"that is {budget:.4f} nats a weight, which pays for moving each by {distance:.5f}",
        f"all weights at 0 instead of {loc}: {kl(loc):.2f} nats each, {weights * kl(loc):.3g} nats",
    ]
    return "\n".join(f"- {line}" for line in lines)


def main() -> None:
    given = arguments(__doc__.splitlines()[0]).parse_args()
    splits = load(given.data)
    head = ["reading", "epoch", "KL text", "KL image", "KL gate", "KL", "log-likelihood"]
    head += ["mean abs(loc − μ)", "directions of z", "dev F1"]
    rows = [line for name in READINGS for line in follow(name, splits, given.scale, given.epochs)]
    print(grid(head, rows, 1))
    rates = splits["train"].genres.double().mean(0).clamp(1e-9, 1 - 1e-9).tolist()
    known = -len(splits["train"].genres) * entropy(rates)
    print(f"\nLog-likelihood of the genres' rates alone: {nats(known)}.")
    print("\nAt the paper's sizes, by hand:\n")
    print(by_hand())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
