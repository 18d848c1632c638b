"""The systems: GMU, M+MO (two objectives), PM+MO (with variational inference), and an MLP.

Each is an `nn.Module` with `train_step` and `predict`. B movies in a batch, G genres.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pmmo.config.settings import Settings
from pmmo.kernels.clipped_adam import ClippedAdam
from pmmo.kernels.laplace_weights import fused
from pmmo.kernels.layers import Linear
from pmmo.model.networks import (
    Columns,
    Fused,
    Fusion,
    Inputs,
    apply_max_norm,
    maxout_classifier,
)
from pmmo.model.objectives import (
    KL_TERMS,
    closed_form_kl,
    kl_factor,
    kl_temperature,
    log_likelihood,
    norm_of,
    penalty,
)
from pmmo.model.variational import BayesianFusion

Terms = dict[str, Tensor | float]  # loss terms of one step; "loss" is the one that is minimised


class Sizes(NamedTuple):
    text: int  # T
    image: int  # I
    genres: int  # G
    movies: int  # N, training movies


class Batch(NamedTuple):
    text: Tensor  # (B, T)
    image: Tensor  # (B, I)
    genres: Tensor  # (B, G) float 0/1


def bce(logits: Tensor, genres: Tensor, reduction: str) -> Tensor:
    """Binary cross-entropy per movie, averaged or summed over the genres (departure D10)."""
    if logits.ndim == 3:  # of C cycles, (C, B, G): one value each, (C,)
        return torch.stack([bce(*cycle, reduction) for cycle in zip(logits, genres, strict=True)])
    loss = binary_cross_entropy_with_logits(logits.to(genres.dtype), genres)
    return loss if reduction == "mean" else loss * genres.shape[-1]


class System(nn.Module):
    """What all systems share: normalised inputs, a fusion, classifier C, one step, prediction.

    A subclass makes `optimisers` and defines `losses`, the loss terms of a batch in an epoch, per
    movie unless said otherwise; it may build another fusion or classifier.
    """

    optimisers: tuple[torch.optim.Optimizer, ...]
    losses: Callable[[Batch, int], Terms]

    def __init__(self, settings: Settings, sizes: Sizes) -> None:
        super().__init__()
        self.settings, self.sizes = settings, sizes
        # in the order in which the movies pass through them
        self.inputs = self.build_inputs()
        self.fusion = self.build_fusion()
        self.classifier = self.build_classifier()

    def build_inputs(self) -> nn.Module:
        return Inputs(self.sizes.text, self.sizes.image, self.settings.batch_norm)

    def build_fusion(self) -> nn.Module:
        s = self.settings
        return Fusion(self.sizes.text, self.sizes.image, s.width, s.gate_input)

    def build_classifier(self) -> nn.Module:
        s = self.settings
        return maxout_classifier(
            self.fused_width(),
            self.sizes.genres,
            units=s.maxout_units,
            layers=s.maxout_layers,
            pieces=s.maxout_pieces,
            dropout=s.dropout,
            batch_norm=s.batch_norm,
            order=s.classifier_order,
        )

    def fused_width(self) -> int:
        """H, the width of z."""
        return self.settings.width

    def fuse(self, text: Tensor, image: Tensor, sample: bool) -> Fused:
        """z and gate (B, H); `sample` draws the weights where they have a posterior."""
        return self.fusion(text, image)

    def limit_norms(self) -> None:
        """Max-norm on module C after a step (section 3.1, departure D26)."""
        if self.settings.max_norm != "none":
            apply_max_norm(self.classifier, self.settings.max_norm)

    def products(self, device: str) -> AbstractContextManager:
        """Matrix products in bfloat16 if so set; sums of losses and all parameters stay float32."""
        bf16 = self.settings.precision == "bf16"
        return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()

    def train_step(self, batch: Batch, epoch: int) -> Terms:
        """One step: both losses from one forward pass, one backward pass (section 3.1)."""
        with self.products(batch.text.device.type):
            terms = self.losses(batch, epoch)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        terms["loss"].sum().backward()  # over the cycles, if there are several
        for optimiser in self.optimisers:
            optimiser.step()
        self.limit_norms()
        return terms

    def predict(
        self, text: Tensor, image: Tensor, sample: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Genre probabilities (B, G) and gate (B, H), if there is one."""
        fused = self.fuse(*self.inputs(text, image), sample)
        return torch.sigmoid(self.classifier(fused.z)), fused.gate


class Gmu(System):
    """The baseline (Arevalo et al. 2017): end to end, one cross-entropy, Adam, max-norm."""

    # the publication's equations, which its code does not follow to the letter (departure D17)

    def __init__(self, settings: Settings, sizes: Sizes) -> None:
        super().__init__(settings, sizes)
        self.optimisers = (
            torch.optim.Adam(self.parameters(), lr=settings.learning_rate, fused=True),
        )

    def losses(self, batch: Batch, epoch: int) -> Terms:
        fused = self.fusion(*self.inputs(batch.text, batch.image))
        loss = bce(self.classifier(fused.z), batch.genres, self.settings.bce)
        return {"loss": loss, "loss_c": loss}

    def limit_norms(self) -> None:
        super().limit_norms()
        if self.settings.max_norm != "none":
            apply_max_norm(self.fusion, self.settings.max_norm)


class Mlp(Gmu):
    """The GMU's classifier without its fusion: on one column, or on both side by side.

    MaxoutMLP_w2v, VGG_Transfer and Concatenate of Arevalo et al. 2017. The classifier's own batch
    norm is that of the inputs.
    """

    def build_inputs(self) -> Inputs:
        return Inputs(self.sizes.text, self.sizes.image, enabled=False)

    def build_fusion(self) -> Columns:
        return Columns(self.settings.inputs)

    def fused_width(self) -> int:
        text, image, *_ = self.sizes
        return {"text": text, "image": image, "both": text + image}[self.settings.inputs]


class TwoObjectives(System):
    """Module A with its own readout and optimiser, module C with AdamW (section 3.1)."""

    def __init__(self, settings: Settings, sizes: Sizes) -> None:
        super().__init__(settings, sizes)
        own = settings.readout == "own"
        self.own_readout = Linear(settings.width, sizes.genres) if own else None
        module_c = list(self.classifier.parameters())
        in_c = set(map(id, module_c))
        # with batch norm of the inputs and the readout, which are deterministic (departure D24)
        module_a = [p for p in self.parameters() if p.requires_grad and id(p) not in in_c]
        self.optimisers = (
            ClippedAdam(module_a, lr=settings.learning_rate),
            torch.optim.AdamW(  # departure D20
                module_c,
                lr=settings.classifier_learning_rate,
                weight_decay=settings.weight_decay,
                fused=True,
            ),
        )

    def readout(self, z: Tensor) -> Tensor:
        """Logits (B, G) of A's own likelihood (departure D2)."""
        return self.classifier(z) if self.own_readout is None else self.own_readout(z)

    def loss_c(self, z: Tensor, genres: Tensor) -> Tensor:
        if self.settings.classifier_gradient == "detached":
            z = z.detach()
        return bce(self.classifier(z), genres, self.settings.bce)


class Mmo(TwoObjectives):
    """M+MO: PM+MO without variational inference; A minimises the cross-entropy of its readout."""

    # what is left of A without it: departure D25

    def losses(self, batch: Batch, epoch: int) -> Terms:
        fused = self.fusion(*self.inputs(batch.text, batch.image))
        loss_a = bce(self.readout(fused.z), batch.genres, "sum")  # -log p(y | x), as PM+MO has it
        loss_c = self.loss_c(fused.z, batch.genres)
        return {"loss": loss_a + loss_c, "loss_a": loss_a, "loss_c": loss_c}


class Pmmo(TwoObjectives):
    """PM+MO: A's weights are random variables, its objective an ELBO (sections 3.1, 3.2)."""

    def build_fusion(self) -> BayesianFusion:
        s = self.settings
        # sigma read as the variance 2 b^2 of a Laplace, or as its scale b (departure D8)
        scale = (s.prior_scale / 2) ** 0.5 if s.prior_scale_is == "variance" else s.prior_scale
        return BayesianFusion(
            self.sizes.text,
            self.sizes.image,
            s.width,
            gate_input=s.gate_input,
            guide_start=s.guide_start,
            guide_scale=s.guide_scale,
            prior=s.prior,
            prior_loc=s.prior_loc,
            prior_scale=scale,
            pair=partial(
                fused,
                closed_form=KL_TERMS[s.elbo] is closed_form_kl,
                penalty=norm_of(s.penalty, s.penalty_on),
                compile=s.compile,
            ),
        )

    def fuse(self, text: Tensor, image: Tensor, sample: bool) -> Fused:
        guide = self.fusion.guide
        return self.fusion(guide() if sample else guide.mean(), text, image)

    def losses(self, batch: Batch, epoch: int) -> Terms:
        s, movies = self.settings, self.sizes.movies
        text, image = self.inputs(batch.text, batch.image)
        guide_trace, model_trace = self.fusion.traces(
            text, image, batch.genres, readout=self.readout, movies=movies
        )
        likelihood = log_likelihood(model_trace)  # nats of the training set
        kl = KL_TERMS[s.elbo](guide_trace, model_trace)  # nats
        factor = kl_factor(s.elbo, epoch, s.epochs, s.anneal_from)
        factor *= kl_temperature(s.kl_weight, movies, self.fusion.random_weights)
        extra = s.penalty_weight * penalty(
            guide_trace, s.penalty, s.penalty_on, s.penalty_reduction
        )
        loss_a = (factor * kl - likelihood) / movies + extra  # negative ELBO per movie + penalty
        loss_c = self.loss_c(model_trace.nodes["_RETURN"]["value"].z, batch.genres)
        return {
            "loss": loss_a + loss_c,
            "loss_a": loss_a,
            "log_likelihood": likelihood / movies,
            "kl": kl / movies,
            "kl_factor": factor,
            "penalty": extra,
            "loss_c": loss_c,
        }
