"""Module A of PM+MO: the weights of the fusion layers are Laplace random variables, in Pyro.

    p(theta) = Laplace(mu_l, sigma_l)              for each weight and bias of layer l
    p(y | theta, x) = Bernoulli(readout(z))        z = fuse(theta, x), Eq. 1 and 2
    q(theta) = Laplace(loc, exp(log_scale))        one location and scale per weight

The parameters are those of an `nn.Module`; Pyro's parameter store stays empty.
"""

import math
from collections.abc import Callable, Mapping

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli
from torch import Tensor, nn

from pmmo.kernels.laplace_weights import WeightPosterior, WeightPrior
from pmmo.kernels.random_streams import Streams
from pmmo.model.networks import LAYERS, Fused, fan_in_uniform, fuse, layer_shapes

Weights = dict[str, Tensor]
Pair = tuple[WeightPosterior, WeightPrior]


def site(name: str) -> str:
    """Name of a parameter in an `nn.ParameterDict`, which allows no dots."""
    return name.replace(".", "_")


class LaplacePosterior(nn.Module):
    """q(theta): mean-field Laplace with learned locations and log-scales."""

    def __init__(self, loc: Mapping[str, Tensor], scale: float) -> None:
        super().__init__()
        self.names = tuple(loc)
        self.loc = nn.ParameterDict({site(k): nn.Parameter(v) for k, v in loc.items()})
        self.log_scale = nn.ParameterDict(
            {site(k): torch.full_like(v, math.log(scale)) for k, v in loc.items()}
        )
        self.cycles = torch.Size()  # the leading axis (C,) of cycles that are trained together
        self.streams: Streams | None = None  # their random streams

    def distribution(self, name: str) -> WeightPosterior:
        key = site(name)
        return WeightPosterior(self.loc[key], self.log_scale[key], self.cycles, self.streams)

    def forward(self, q: Mapping[str, WeightPosterior] | None = None) -> Weights:
        """The Pyro guide: draws every weight tensor, from `q` if given."""
        q = {name: self.distribution(name) for name in self.names} if q is None else q
        return {name: pyro.sample(name, q[name]) for name in self.names}

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

    def forward(self, p: Mapping[str, WeightPrior] | None = None) -> Weights:
        """The prior's part of the Pyro model: every weight tensor, from `p` if given."""
        p = {name: self.distribution(name) for name in self.shapes} if p is None else p
        return {name: pyro.sample(name, p[name]) for name in self.shapes}


def separate(q: WeightPosterior, p: WeightPrior) -> Pair:
    """q and p as they are: the plain twin of `kernels.laplace_weights.fused`."""
    return q, p


def paired(
    guide: LaplacePosterior, prior: LaplacePrior, pair: Callable[..., Pair]
) -> tuple[dict[str, WeightPosterior], dict[str, WeightPrior]]:
    """q and p of every weight tensor for one step, as `pair` evaluates them."""
    pairs = {n: pair(guide.distribution(n), prior.distribution(n)) for n in guide.names}
    return {n: q for n, (q, _) in pairs.items()}, {n: p for n, (_, p) in pairs.items()}


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
        pair: Callable[..., Pair] = separate,
    ) -> None:
        """`pair` decides how q and p of a weight tensor are evaluated, never what they are."""
        super().__init__()
        self.pair = pair
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
        p: Mapping[str, WeightPrior] | None = None,
    ) -> Fused:
        """The Pyro model of a mini-batch.

        `readout` maps z (B, H) to the logits (B, G) of A's likelihood. The plate scales the
        likelihood of the B movies to the N = `movies` of the training set.
        """
        fused = self(self.prior(p), text, image)
        with pyro.plate("movies", movies, subsample=torch.arange(text.shape[-2])):
            likelihood = Bernoulli(logits=readout(fused.z).to(genres.dtype)).to_event(1)
            pyro.sample("genres", likelihood, obs=genres)
        return fused

    def traces(
        self, text: Tensor, image: Tensor, genres: Tensor, **of_model: object
    ) -> tuple[poutine.Trace, poutine.Trace]:
        """Traces of the guide and of the model at the guide's draw; the model returns `Fused`."""
        q, p = paired(self.guide, self.prior, self.pair)
        guide_trace = poutine.trace(self.guide).get_trace(q)
        model = poutine.trace(poutine.replay(self.model, trace=guide_trace))
        return guide_trace, model.get_trace(text, image, genres, p=p, **of_model)
