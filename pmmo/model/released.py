"""`pmmo-released`: the system that the authors' released code trains (docs/released-code.md).

Three facts decide what it is. The embedding z that C classifies comes from the deterministic
fusion, not from its Bayesian copy; the penalty is added to the float that `SVI.step` returns and
has no gradient; and the optimiser of variational inference also moves the deterministic weights,
by whatever gradient they hold: that of the *previous* batch's cross-entropy.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import pyro
import torch
from pyro import poutine
from pyro.distributions import Categorical
from torch import Tensor, nn

from pmmo.config.settings import Settings
from pmmo.kernels.clipped_adam import ClippedAdam
from pmmo.kernels.laplace_weights import WeightPrior, fused
from pmmo.model.networks import (
    Fused,
    Fusion,
    fuse,
    layer_shapes,
    maxout_classifier,
    mix,
    unimodal,
)
from pmmo.model.objectives import sampled_kl
from pmmo.model.systems import Batch, Sizes, System, Terms, bce
from pmmo.model.variational import LaplacePosterior, LaplacePrior, paired


class LiftedCopy(nn.Module):
    """The fusion lifted to random variables: its objective trains its guide, and nothing else."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        start = {name: torch.randn(shape) * 0.001 for name, shape in shapes.items()}
        self.prior = LaplacePrior(shapes, loc=1.0, scale=1.0, learned=False)
        self.guide = LaplacePosterior(start, scale=math.log(2))  # softplus(0)

    def model(
        self, text: Tensor, image: Tensor, genres: Tensor, p: Mapping[str, WeightPrior]
    ) -> None:
        z = torch.tanh(fuse(self.prior(p), text, image, "inputs").z)  # (B, H)
        # the likelihood takes the 0/1 labels as numbers of categories, of which there are H
        with pyro.plate("genres", genres.shape[1]), pyro.plate("movies", len(text)):
            logits = torch.sigmoid(z).unsqueeze(-2)  # (B, 1, H)
            pyro.sample("labels", Categorical(logits=logits), obs=genres)

    def negative_elbo(self, text: Tensor, image: Tensor, genres: Tensor) -> Tensor:
        q, p = paired(self.guide, self.prior, partial(fused, closed_form=False))
        guide_trace = poutine.trace(self.guide).get_trace(q)
        model = poutine.trace(poutine.replay(self.model, trace=guide_trace))
        model_trace = model.get_trace(text, image, genres, p)
        labels = model_trace.nodes["labels"]
        log_likelihood = labels["fn"].log_prob(labels["value"]).sum()
        return sampled_kl(guide_trace, model_trace) - log_likelihood

    def squared_weights(self, *_batch: Tensor) -> Tensor:
        """An objective that has nothing to do with the data."""
        return sum(weights.square().sum() for weights in self.guide().values())


class ReleasedFusion(Fusion):
    """The gate sees the inputs, concatenated and batch-normed once more; z passes a second tanh."""

    def __init__(self, text: int, image: int, hidden: int, batch_norm: bool) -> None:
        super().__init__(text, image, hidden, "inputs")
        self.both = nn.BatchNorm1d(text + image) if batch_norm else nn.Identity()

    def forward(self, text: Tensor, image: Tensor) -> Fused:
        weights = dict(self.named_parameters())
        both = self.both(torch.cat((text, image), dim=-1))  # (B, T + I)
        z, gate = mix(weights, *unimodal(weights, text, image), both)
        return Fused(torch.tanh(z), gate)


class Released(System):
    """A wide GMU on a second tanh, whose fusion is updated one step late."""

    def __init__(self, settings: Settings, sizes: Sizes) -> None:
        super().__init__(settings, sizes)
        self.draws = 0
        with self.apart():
            self.lifted = LiftedCopy(
                layer_shapes(sizes.text, sizes.image, settings.width, "inputs")
            )
        self.optimisers = (
            # one optimiser in the released code; element-wise, so it is the same as these two
            ClippedAdam(self.lifted.guide.parameters(), lr=settings.learning_rate),
            ClippedAdam(
                [*self.inputs.parameters(), *self.fusion.parameters()], lr=settings.learning_rate
            ),
            torch.optim.AdamW(
                self.classifier.parameters(),
                lr=settings.classifier_learning_rate,
                weight_decay=settings.weight_decay,
                eps=1e-6,
                fused=True,
            ),
        )

    @contextmanager
    def apart(self) -> Iterator[None]:
        """A random stream of its own, so that inference leaves batches and dropout as they were."""
        with torch.random.fork_rng():
            torch.manual_seed(self.draws)
            self.draws += 1
            yield

    def build_fusion(self) -> ReleasedFusion:
        s = self.settings
        return ReleasedFusion(self.sizes.text, self.sizes.image, s.width, s.batch_norm)

    def build_classifier(self) -> nn.Sequential:
        s = self.settings
        return maxout_classifier(
            s.width,
            self.sizes.genres,
            units=s.maxout_units,
            layers=2,
            pieces=s.maxout_pieces,
            dropout=s.dropout,
            batch_norm=s.batch_norm,
            order="released",
        )

    def inference(self, batch: Batch) -> Tensor | None:
        """The objective whose gradient `SVI.step` computes before it calls the optimiser."""
        objectives = {
            "elbo": self.lifted.negative_elbo,
            "squared_weights": self.lifted.squared_weights,
        }
        if self.settings.inference == "none":
            return None
        with self.apart():
            return objectives[self.settings.inference](*batch)

    def train_step(self, batch: Batch, epoch: int) -> Terms:
        for_guide, for_a, for_c = self.optimisers
        objective = self.inference(batch)
        if objective is not None:
            objective.backward()
        for_guide.step()
        for_guide.zero_grad()
        for_a.step()  # the fusion, by the previous batch's gradient
        for_a.zero_grad()
        z = self.fuse(*self.inputs(batch.text, batch.image), sample=False).z
        loss = bce(self.classifier(z), batch.genres, self.settings.bce)
        loss.backward()  # the fusion keeps this gradient for the next step
        nn.utils.clip_grad_norm_(self.classifier.parameters(), self.settings.gradient_norm)
        for_c.step()
        for_c.zero_grad()
        return {"loss": loss, "loss_c": loss}
