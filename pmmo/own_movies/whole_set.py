"""Predict movies batch by batch as `evaluation.predict` predicts them at once.

With `batch_norm_eval: evaluation_set` each batch-norm layer normalises by the statistics of all
movies that are evaluated (departure D9). So these are gathered first, in one pass over the movies
for the inputs and one more for each deeper layer, whose input depends on the layers before it.
A posterior draw has activations, and so statistics, of its own. B movies in a batch, G genres.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pmmo.model.systems import System
from pmmo.training.device import cuda_devices
from pmmo.training.evaluation import own_samples

Statistics = tuple[Tensor, Tensor]  # mean and variance (W,) of a layer's inputs
Weights = Tensor | None  # the random generator's state before a draw; None: no draw


class Predicted(NamedTuple):
    """Of one batch: probabilities (B, G), and those of each posterior draw, if there are any."""

    probabilities: Tensor
    draws: Tensor | None  # (K, B, G)


class Moments:
    """Mean and variance of rows that come in batches (Chan, Golub and LeVeque 1979), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        """One more batch (B, W)."""
        rows = rows.double()
        mean = rows.mean(0)
        total = self.count + len(rows)
        shift = mean - self.mean
        self.squares = self.squares + (rows - mean).square().sum(0)
        self.squares += shift.square() * (self.count * len(rows) / total)
        self.mean = self.mean + shift * (len(rows) / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Mean and variance over all rows, as batch norm has them."""
        return self.mean, self.squares / self.count


def norm_layers(system: System) -> list[list[nn.BatchNorm1d]]:
    """Batch-norm layers in the order in which their statistics can be known: the inputs' first."""
    inputs = [m for m in system.inputs.modules() if isinstance(m, nn.BatchNorm1d)]
    deeper = [m for m in system.modules() if isinstance(m, nn.BatchNorm1d) and m not in inputs]
    return [layers for layers in (inputs, *([layer] for layer in deeper)) if layers]


def passes(system: System, batch_norm: str) -> int:
    """How often `predict_set` goes through the movies."""
    return 1 + (len(norm_layers(system)) if batch_norm == "evaluation_set" else 0)


@torch.no_grad()
def predict_set(
    system: System,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    *,
    batch_norm: str,
    samples: int,
    seed: int,
) -> Iterator[Predicted]:
    """Predict all movies; `batches` starts over at the first (text, image) each time it is called.

    There are `samples` posterior draws from `seed`, whose mean is the prediction where the settings
    say `prediction: samples`; else this is that of the posterior mean, or of the weights.
    `batch_norm` is `evaluation_set` or `running`, as in the settings.
    """
    averaged = own_samples(system) > 0
    draws = draw_states(system, next(iter(batches())), samples, seed)
    choices: list[Weights] = [*([] if averaged else [None]), *draws]
    known: list[dict[nn.Module, Statistics]] = [{} for _ in choices]
    of_training = {
        layer: (layer.running_mean.clone(), layer.running_var.clone())
        for layers in norm_layers(system)
        for layer in layers
    }
    system.eval()
    try:
        if batch_norm == "evaluation_set":
            for layers in norm_layers(system):
                gather(system, layers, batches, choices, known)
        for text, image in batches():
            found = []
            for weights, statistics in zip(choices, known, strict=True):
                use(statistics)
                found.append(probabilities(system, text, image, weights))
            drawn = torch.stack(found[-samples:]) if samples else None  # (K, B, G)
            yield Predicted(
                probabilities=drawn.mean(0) if averaged else found[0],
                draws=drawn,
            )
    finally:
        use(of_training)


def gather(
    system: System,
    layers: list[nn.BatchNorm1d],
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    choices: list[Weights],
    known: list[dict[nn.Module, Statistics]],
) -> None:
    """One pass over the movies: add the statistics of `layers` to `known`, for each choice."""
    of_inputs = layers[0] in set(system.inputs.modules())  # the same for all choices
    moments = [{layer: Moments() for layer in layers} for _ in choices]
    for text, image in batches():
        for number, weights in enumerate(choices[:1] if of_inputs else choices):
            hooks = [
                layer.register_forward_pre_hook(lambda _, x, m=moment: m.add(x[0]))
                for layer, moment in moments[number].items()
            ]
            use(known[number])
            if of_inputs:
                system.inputs(text, image)
            else:
                probabilities(system, text, image, weights)
            for hook in hooks:
                hook.remove()
    for number, statistics in enumerate(known):
        source = moments[0 if of_inputs else number]
        statistics |= {layer: moment.statistics() for layer, moment in source.items()}


def use(statistics: dict[nn.BatchNorm1d, Statistics]) -> None:
    """Have the layers normalise by these statistics."""
    for layer, (mean, variance) in statistics.items():
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)


def draw_states(
    system: System, batch: tuple[Tensor, Tensor], samples: int, seed: int
) -> list[Tensor]:
    """The random generator's state before each of `samples` draws, one after the other.

    So every batch can have the same draws without their weights being kept.
    """
    states = []
    text, image = (column[:1] for column in batch)
    with torch.random.fork_rng(cuda_devices(text.device)):
        torch.manual_seed(seed)
        system.eval()
        for _ in range(samples):
            states.append(
                torch.cuda.get_rng_state(text.device) if text.is_cuda else torch.get_rng_state()
            )
            system.predict(text, image, sample=True)
    return states


def probabilities(system: System, text: Tensor, image: Tensor, weights: Weights) -> Tensor:
    """(B, G) by the posterior mean, or by one draw."""
    if weights is None:
        return system.predict(text, image)[0]
    with torch.random.fork_rng(cuda_devices(text.device)):
        if text.is_cuda:
            torch.cuda.set_rng_state(weights, text.device)
        else:
            torch.set_rng_state(weights)
        return system.predict(text, image, sample=True)[0]
