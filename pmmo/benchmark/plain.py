"""PM+MO's step in plain Pyro, as in Pyro's tutorials: the reference for the fast step.

Nothing here is optimised for speed, and nothing is shared with `pmmo.model.systems`. It uses one
`pyro.sample` of Pyro's own Laplace per weight tensor, traces and their `log_prob_sum` (tutorial
"Customizing SVI objectives", also for the annealed KL), the closed form of torch.distributions, and
Pyro's own ClippedAdam. The tests compare every term and gradient of the fast step with it; `make
bench` times both.

Shapes: B movies in a batch, N in training, T text and I image features, H hidden units, G genres.
"""

import math

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Laplace
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import linear

from pmmo.config.settings import Settings
from pmmo.model.systems import Batch, Sizes

LAYERS = ("text", "image", "gate")


class Maxout(nn.Module):
    """The largest of `pieces` linear functions, for each of `units`."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces
        self.linear = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).view(len(x), self.units, self.pieces).max(dim=2).values  # (B, units)


def classifier(settings: Settings, genres: int) -> nn.Sequential:
    """Module C: maxout layers and logits (B, G)."""
    steps: list[nn.Module] = []
    width = settings.width
    released = settings.classifier_order == "released"
    for layer in range(settings.maxout_layers):
        if settings.batch_norm:
            steps.append(nn.BatchNorm1d(width))
        if released and layer == settings.maxout_layers - 1:
            steps.append(nn.Dropout(settings.dropout))
        steps.append(Maxout(width, settings.maxout_units, settings.maxout_pieces))
        if not released:
            steps.append(nn.Dropout(settings.dropout))
        width = settings.maxout_units
    if released and settings.batch_norm:
        steps.append(nn.BatchNorm1d(width))
    steps.append(nn.Linear(width, genres))
    return nn.Sequential(*steps)


class PlainPmmo(nn.Module):
    """Model, guide, losses and one step of PM+MO, for every setting of the system `pmmo`."""

    def __init__(self, settings: Settings, sizes: Sizes) -> None:
        super().__init__()
        self.settings, self.sizes = settings, sizes
        gate_inputs = sizes.text + sizes.image
        if settings.gate_input == "outputs":
            gate_inputs = 2 * settings.width
        self.shapes = {}
        for layer, inputs in zip(LAYERS, (sizes.text, sizes.image, gate_inputs), strict=True):
            self.shapes[f"{layer}_weight"] = (settings.width, inputs)
            self.shapes[f"{layer}_bias"] = (settings.width,)

        prior_scale = settings.prior_scale
        if settings.prior_scale_is == "variance":  # of a Laplace: 2 b^2
            prior_scale = math.sqrt(prior_scale / 2)
        learned = settings.prior == "learned"
        self.prior_loc, self.prior_log_scale = nn.ParameterDict(), nn.ParameterDict()
        for layer in LAYERS:
            self.prior_loc[layer] = nn.Parameter(torch.tensor(settings.prior_loc), learned)
            self.prior_log_scale[layer] = nn.Parameter(torch.tensor(prior_scale).log(), learned)

        self.loc, self.log_scale = nn.ParameterDict(), nn.ParameterDict()
        for name, shape in self.shapes.items():
            if settings.guide_start == "prior":
                loc, scale = torch.full(shape, settings.prior_loc), prior_scale
            else:
                bound = 1 / math.sqrt(self.shapes[name.split("_")[0] + "_weight"][1])
                loc, scale = torch.empty(shape).uniform_(-bound, bound), settings.guide_scale
            self.loc[name] = nn.Parameter(loc)
            self.log_scale[name] = nn.Parameter(torch.full(shape, math.log(scale)))

        normalise = nn.BatchNorm1d if settings.batch_norm else nn.Identity
        self.inputs = nn.ModuleDict(
            {"text": normalise(sizes.text), "image": normalise(sizes.image)}
        )
        self.own_readout = None
        if settings.readout == "own":
            self.own_readout = nn.Linear(settings.width, sizes.genres)
        self.classifier = classifier(settings, sizes.genres)

        module_c = set(self.classifier.parameters())
        module_a = [p for p in self.parameters() if p.requires_grad and p not in module_c]
        self.optimisers = (
            ClippedAdam(module_a, lr=settings.learning_rate),
            torch.optim.AdamW(
                self.classifier.parameters(),
                lr=settings.classifier_learning_rate,
                weight_decay=settings.weight_decay,
            ),
        )

    def guide(self, batch: Batch) -> None:
        """q: a Laplace with one location and scale per weight."""
        for name, shape in self.shapes.items():
            scale = self.log_scale[name].exp()
            pyro.sample(name, Laplace(self.loc[name], scale).to_event(len(shape)))

    def model(self, batch: Batch) -> Tensor:
        """p: samples the weights from the prior and observes the genres; returns z (B, H)."""
        w = {}
        for name, shape in self.shapes.items():
            layer = name.split("_")[0]
            prior = Laplace(self.prior_loc[layer], self.prior_log_scale[layer].exp())
            w[name] = pyro.sample(name, prior.expand(shape).to_event(len(shape)))
        text, image = self.inputs["text"](batch.text), self.inputs["image"](batch.image)
        v_t = torch.tanh(linear(text, w["text_weight"], w["text_bias"]))  # (B, H)
        v_i = torch.tanh(linear(image, w["image_weight"], w["image_bias"]))  # (B, H)
        pair = [v_t, v_i] if self.settings.gate_input == "outputs" else [text, image]
        v_cat = torch.cat(pair, dim=1)  # (B, 2H), or (B, T + I)
        gate = torch.sigmoid(linear(v_cat, w["gate_weight"], w["gate_bias"]))  # (B, H)
        z = gate * v_i + (1 - gate) * v_t
        logits = self.classifier(z) if self.own_readout is None else self.own_readout(z)  # (B, G)
        with pyro.plate("movies", self.sizes.movies, subsample=torch.arange(len(z))):
            pyro.sample("genres", Bernoulli(logits=logits).to_event(1), obs=batch.genres)
        return z

    def kl(self, guide_trace: poutine.Trace, model_trace: poutine.Trace) -> Tensor:
        """The KL term in nats: at the draw (v1, kl), or in closed form (v2)."""
        total = torch.zeros(())
        for name in self.shapes:
            q, p = guide_trace.nodes[name], model_trace.nodes[name]
            if self.settings.elbo == "v2":
                total = total + kl_divergence(q["fn"], p["fn"])
            else:
                total = total + q["log_prob_sum"] - p["log_prob_sum"]
        return total

    def kl_factor(self, epoch: int) -> float:
        """The KL weight k times the annealing factor (lambda to 1 over the epochs, elbo kl)."""
        s = self.settings
        factor = 1.0
        if s.elbo == "kl" and s.epochs > 1:
            factor = s.anneal_from + (1.0 - s.anneal_from) * epoch / (s.epochs - 1)
        if s.kl_weight == "per_weight":
            return factor * self.sizes.movies / sum(map(math.prod, self.shapes.values()))
        return factor * (1.0 if s.kl_weight == "exact" else s.kl_weight)

    def penalty(self) -> Tensor:
        """Lambda times the L1 or L2 penalty on the variational parameters."""
        s, total = self.settings, torch.zeros(())
        if s.penalty == "none":
            return total
        for name in self.shapes:
            values = [self.loc[name]]
            if s.penalty_on == "loc_and_scale":
                values.append(self.log_scale[name].exp())
            for value in values:
                total = total + (value.abs() if s.penalty == "l1" else value**2).sum()
        if s.penalty_reduction == "mean":
            total = total / sum(map(math.prod, self.shapes.values()))
        return s.penalty_weight * total

    def losses(self, batch: Batch, epoch: int) -> dict[str, Tensor | float]:
        """The terms of `pmmo.model.systems.Pmmo.losses`, with the same names; per movie."""
        s, movies = self.settings, self.sizes.movies
        guide_trace = poutine.trace(self.guide).get_trace(batch)
        model = poutine.replay(self.model, trace=guide_trace)
        model_trace = poutine.trace(model).get_trace(batch)
        likelihood, kl = self.log_probs(guide_trace, model_trace)
        factor = self.kl_factor(epoch)
        extra = self.penalty()
        loss_a = (factor * kl - likelihood) / movies + extra

        z = model_trace.nodes["_RETURN"]["value"]
        logits = self.classifier(z.detach() if s.classifier_gradient == "detached" else z)
        bce = nn.BCEWithLogitsLoss(reduction="none")(logits, batch.genres)  # (B, G)
        loss_c = bce.mean() if s.bce == "mean" else bce.sum(1).mean()
        return {
            "loss": loss_a + loss_c,
            "loss_a": loss_a,
            "log_likelihood": likelihood / movies,
            "kl": kl / movies,
            "kl_factor": factor,
            "penalty": extra,
            "loss_c": loss_c,
        }

    def log_probs(
        self, guide_trace: poutine.Trace, model_trace: poutine.Trace
    ) -> tuple[Tensor, Tensor]:
        """log p(y | theta, x), which the plate scales to the N movies, and the KL term."""
        if self.settings.elbo == "v2":  # this needs no log-density of the weights
            model_trace.compute_log_prob(lambda name, _: name == "genres")
        else:
            guide_trace.compute_log_prob()
            model_trace.compute_log_prob()
        return model_trace.nodes["genres"]["log_prob_sum"], self.kl(guide_trace, model_trace)

    def train_step(self, batch: Batch, epoch: int) -> dict[str, Tensor | float]:
        """One step: both losses, one backward pass, both optimisers, and max-norm on C."""
        terms = self.losses(batch, epoch)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        terms["loss"].backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.limit_norms()
        return terms

    @torch.no_grad()
    def limit_norms(self) -> None:
        """Limit the norm of the incoming weights of each unit of C to `max_norm`."""
        if self.settings.max_norm == "none":
            return
        for layer in self.classifier.modules():
            if isinstance(layer, nn.Linear):
                norms = layer.weight.norm(dim=1, keepdim=True)  # (units, 1)
                layer.weight *= torch.clamp(self.settings.max_norm / norms, max=1.0)
