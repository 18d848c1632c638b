"""The objectives of module A (section 3.2), from Pyro traces: three ELBOs and two penalties.

Signs and scales: every function returns nats of the whole training set (a mini-batch's likelihood
is scaled to N movies by the model's plate); the systems divide by N, so that the losses of A and C
are both per movie. Values are scalars, or (C,) for cycles that are trained together.
"""

from collections.abc import Iterator

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pmmo.config.settings import Elbo, Penalty
from pmmo.kernels.laplace_blocks import Norm
from pmmo.kernels.laplace_weights import WeightPosterior, WeightPrior


def latent_sites(guide_trace: Trace) -> list[str]:
    return [name for name, node in guide_trace.nodes.items() if node["type"] == "sample"]


def sites(
    guide_trace: Trace, model_trace: Trace
) -> Iterator[tuple[WeightPosterior, Tensor, WeightPrior]]:
    """q, the draw theta and p of every weight tensor."""
    for name in latent_sites(guide_trace):
        q = guide_trace.nodes[name]
        yield q["fn"], q["value"], model_trace.nodes[name]["fn"]


def log_likelihood(model_trace: Trace) -> Tensor:
    """log p(y | theta, x) of the draw, scaled to the training set."""
    node = model_trace.nodes["genres"]
    return node["fn"].log_prob(node["value"]).sum(-1) * node["scale"]


def sampled_kl(guide_trace: Trace, model_trace: Trace) -> Tensor:
    """log q(theta) - log p(theta) at the draw: the KL term of ELBOv1, Eq. 6."""
    # Eq. 5 prints both expectations with a minus; it is -(E[log p] - E[log q]) (departure D16)
    terms = [
        q.log_prob(theta) - p.log_prob(theta) for q, theta, p in sites(guide_trace, model_trace)
    ]
    return torch.stack(terms).sum(0)


def closed_form_kl(guide_trace: Trace, model_trace: Trace) -> Tensor:
    """KL(q || p) between Laplace distributions: the Rao-Blackwellised KL term of ELBOv2.

    With a reparameterised guide, Pyro's TraceGraph_ELBO gives ELBOv1's gradient (departure D4);
    replacing the sampled log-ratio by its conditional expectation is what lowers the variance.
    """
    terms = [kl_divergence(q, p) for q, _, p in sites(guide_trace, model_trace)]
    return torch.stack(terms).sum(0)


KL_TERMS = {"v1": sampled_kl, "v2": closed_form_kl, "kl": sampled_kl}
ANNEALED = ("kl",)  # those whose KL term has an annealing factor (4.1)


def kl_factor(elbo: Elbo, epoch: int, epochs: int, start: float) -> float:
    """Annealing factor of the KL term in `epoch` (from 0): `start` (lambda) up to 1 (D3)."""
    if elbo not in ANNEALED or epochs == 1:
        return 1.0
    return start + (1 - start) * epoch / (epochs - 1)


def kl_temperature(kl_weight: str | float, movies: int, random_weights: int) -> float:
    """k of  -log-likelihood/B + k KL/N: 1 is the exact ELBO (departure D5).

    `per_weight` is k = N/P, which makes the KL term an average over the P random weights.
    """
    if kl_weight == "exact":
        return 1.0
    if kl_weight == "per_weight":
        return movies / random_weights
    return float(kl_weight)


def norm_of(kind: Penalty, on: str) -> Norm | None:
    """What `penalty` sums of each weight."""
    return None if kind == "none" else Norm({"l1": 1, "l2": 2}[kind], on == "loc_and_scale")


def penalty(guide_trace: Trace, kind: Penalty, on: str, reduction: str) -> Tensor | float:
    """L1 or L2 norm term of the variational parameters, summed or averaged over the weights.

    `on` is `loc` or `loc_and_scale`; the scale is penalised as the constrained b > 0 (a penalty
    on the log-scale would pull every scale towards 1).
    """
    norm = norm_of(kind, on)
    if norm is None:
        return 0.0
    # departure D14
    posteriors = [guide_trace.nodes[name]["fn"] for name in latent_sites(guide_trace)]
    total = torch.stack([q.norm(norm) for q in posteriors]).sum(0)
    if reduction == "sum":
        return total
    return total / sum(q.weights for q in posteriors)
