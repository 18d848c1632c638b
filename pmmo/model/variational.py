"""Module A of PM+MO: the fusion layers' weights as Laplace random variables, in Pyro.

    p(theta) = Laplace(mu_l, sigma_l)              for each weight and bias of layer l
    p(y | theta, x) = Bernoulli(readout(z))        z = fuse(theta, x), Eq. 1 and 2
    q(theta) = Laplace(loc, exp(log_scale))        one location and scale per weight

Nothing lives in Pyro's parameter store: the parameters are those of an `nn.Module`.
"""

import math
from collections.abc import Callable, Mapping

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli
from torch import Tensor, nn

from pmmo.kernels.laplace_draw import Along, WeightGradient
from pmmo.kernels.laplace_weights import Norm, WeightPosterior, WeightPrior
from pmmo.kernels.random_streams import Streams
from pmmo.model.networks import LAYERS, Fused, fan_in_uniform, fuse, layer_shapes

Weights = dict[str, Tensor]


def site(name: str) -> str:
    """Name of a parameter in an `nn.ParameterDict`, which allows no dots."""
    return name.replace(".", "_")


class LaplacePosterior(nn.Module):
    """The guide q: mean-field Laplace with learned locations and log-scales."""

    def __init__(self, loc: Mapping[str, Tensor], scale: float) -> None:
        super().__init__()
        self.names = tuple(loc)
        self.loc = nn.ParameterDict({site(k): nn.Parameter(v) for k, v in loc.items()})
        self.log_scale = nn.ParameterDict(
            {site(k): torch.full_like(v, math.log(scale)) for k, v in loc.items()}
        )
        self.along: Callable[[str], Along] | None = None
        self.streams: Streams | None = None  # of cycles that are trained together

    def distribution(self, name: str) -> WeightPosterior:
        along = self.along(name) if self.along and torch.is_grad_enabled() else None
        return WeightPosterior(self.loc[site(name)], self.log_scale[site(name)], along)

    def evaluate_along(
        self,
        prior: "LaplacePrior",
        *,
        closed_form: bool,
        penalty: Norm | None = None,
        compile: bool = False,
    ) -> list[WeightGradient]:
        """From now on a draw evaluates these terms too, in the same passes; changes no value.

        The gradients by loc and log_scale go to the list that is returned, for `ClippedAdam`.
        """
        deferred: list[WeightGradient] = []
        self.along = lambda name: Along(
            prior.distribution(name), closed_form, penalty, deferred.append, self.streams, compile
        )
        return deferred

    def forward(self) -> Weights:
        """The Pyro guide: draws every weight tensor."""
        return {name: pyro.sample(name, self.distribution(name)) for name in self.names}

    def mean(self) -> Weights:
        return {name: self.loc[site(name)] for name in self.names}


class LaplacePrior(nn.Module):
    """p(theta): one location and scale per layer, fixed or learned (departure D6)."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], loc: float, scale: float, learned: bool
    ) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.loc = nn.ParameterDict({k: torch.full((), loc) for k in LAYERS})
        self.log_scale = nn.ParameterDict({k: torch.full((), math.log(scale)) for k in LAYERS})
        self.requires_grad_(learned)

    def distribution(self, name: str) -> WeightPrior:
        layer = name.split(".")[0]
        return WeightPrior(self.loc[layer], self.log_scale[layer], self.shapes[name])

    def forward(self) -> Weights:
        return {name: pyro.sample(name, self.distribution(name)) for name in self.shapes}


class BayesianFusion(nn.Module):
    """Module A's prior, guide and Pyro model around `fuse`."""

    def __init__(
        self,
        text: int,
        image: int,
        hidden: int,
        *,
        gate_input: str,
        guide_start: str,
        guide_scale: float,
        prior: str,
        prior_loc: float,
        prior_scale: float,
    ) -> None:
        super().__init__()
        shapes = layer_shapes(text, image, hidden, gate_input)
        self.gate_input = gate_input
        self.random_weights = sum(math.prod(shape) for shape in shapes.values())  # P
        self.prior = LaplacePrior(shapes, prior_loc, prior_scale, learned=prior == "learned")
        if guide_start == "prior":
            start = {name: torch.full(shape, prior_loc) for name, shape in shapes.items()}
            self.guide = LaplacePosterior(start, prior_scale)
        else:  # departure D7
            self.guide = LaplacePosterior(fan_in_uniform(shapes), guide_scale)

    def forward(self, weights: Mapping[str, Tensor], text: Tensor, image: Tensor) -> Fused:
        return fuse(weights, text, image, self.gate_input)

    def model(
        self,
        text: Tensor,
        image: Tensor,
        genres: Tensor,
        *,
        readout: Callable[[Tensor], Tensor],
        movies: int,
    ) -> Fused:
        """The Pyro model of a mini-batch.

        `readout` maps z (B, H) to the logits (B, G) of A's likelihood. The plate scales the
        likelihood of the B movies to the N = `movies` of the training set.
        """
        fused = self(self.prior(), text, image)
        with pyro.plate("movies", movies, subsample=torch.arange(text.shape[-2])):
            likelihood = Bernoulli(logits=readout(fused.z).to(genres.dtype)).to_event(1)
            pyro.sample("genres", likelihood, obs=genres)
        return fused

    def traces(
        self, text: Tensor, image: Tensor, genres: Tensor, **of_model: object
    ) -> tuple[poutine.Trace, poutine.Trace]:
        """Traces of the guide and of the model at the guide's draw; the model returns `Fused`."""
        guide_trace = poutine.trace(self.guide).get_trace()
        model = poutine.trace(poutine.replay(self.model, trace=guide_trace))
        return guide_trace, model.get_trace(text, image, genres, **of_model)
