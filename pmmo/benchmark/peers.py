"""The same step with the Bayesian layers of other libraries, at the same sizes.

A peer has three Bayesian linear layers of the library inside the other parts of PM+MO: batch norm,
gate, readout and classifier C. Its weights are Gaussian, because no library has a Laplace. It has
no penalty and no annealing, and its optimisers use torch's fused kernels. A peer's step therefore
does no more than PM+MO's.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from pmmo.benchmark.cases import Case
from pmmo.benchmark.contenders import Contender
from pmmo.benchmark.plain import classifier
from pmmo.model.systems import Batch

Layer = Callable[[int, int], nn.Module]  # (inputs, outputs)


class PeerNet(nn.Module):
    """Module A with a library's layers, and module C. `layer(x)` returns the layer's output."""

    def __init__(self, case: Case, layer: Layer) -> None:
        super().__init__()
        shape, width = case.shape, case.settings.width
        outputs = case.settings.gate_input == "outputs"
        self.norm_text, self.norm_image = nn.BatchNorm1d(shape.text), nn.BatchNorm1d(shape.image)
        self.text, self.image = layer(shape.text, width), layer(shape.image, width)
        self.gate = layer(2 * width if outputs else shape.text + shape.image, width)
        self.outputs = outputs
        self.readout = nn.Linear(width, shape.genres)
        self.classifier = classifier(case.settings, shape.genres)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        text, image = self.norm_text(text), self.norm_image(image)
        v_t, v_i = torch.tanh(self.text(text)), torch.tanh(self.image(image))  # (B, H)
        pair = (v_t, v_i) if self.outputs else (text, image)
        gate = torch.sigmoid(self.gate(torch.cat(pair, dim=1)))  # (B, H)
        return gate * v_i + (1 - gate) * v_t


def torch_peer(case: Case, layer: Layer, kl: Callable[[nn.Module], Tensor]) -> Contender:
    """A peer with the library's KL term `kl(net)`, weighted as PM+MO's with `per_weight`."""
    net = PeerNet(case, layer).to(case.device).train()
    s, in_c = case.settings, set(net.classifier.parameters())
    module_a = [p for p in net.parameters() if p not in in_c]
    random_weights = sum(
        p.numel() for part in (net.text, net.image, net.gate) for p in part.parameters()
    )
    optimisers = (
        torch.optim.Adam(module_a, lr=s.learning_rate, fused=True),
        torch.optim.AdamW(
            net.classifier.parameters(),
            lr=s.classifier_learning_rate,
            weight_decay=s.weight_decay,
            fused=True,
        ),
    )

    def step(batch: Batch) -> Tensor:
        z = net(batch.text, batch.image)
        genres = batch.genres.shape[1]
        loss = genres * bce(net.readout(z), batch.genres) + 2 * kl(net) / random_weights
        loss = loss + genres * bce(net.classifier(z), batch.genres)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        return loss.detach()

    return Contender(step)


def torchbnn(case: Case) -> Contender:
    import torchbnn as bnn

    prior = {"prior_mu": case.settings.prior_loc, "prior_sigma": case.settings.prior_scale}
    kl = bnn.BKLLoss(reduction="sum", last_layer_only=False)
    return torch_peer(
        case, lambda i, o: bnn.BayesLinear(in_features=i, out_features=o, **prior), kl
    )


def bayesian_torch(case: Case) -> Contender:
    from bayesian_torch.layers import LinearReparameterization

    class Layer(LinearReparameterization):
        """Keeps the KL term that the library's forward pass returns with the output."""

        def forward(self, x: Tensor) -> Tensor:
            out, self.kl = super().forward(x)
            return out

    def layer(inputs: int, outputs: int) -> nn.Module:
        s = case.settings
        return Layer(inputs, outputs, prior_mean=s.prior_loc, prior_variance=s.prior_scale)

    def kl(net: PeerNet) -> Tensor:  # the library averages over the weights of a tensor
        parts = (net.text, net.image, net.gate)
        return sum(part.kl * part.mu_weight.numel() for part in parts)

    return torch_peer(case, layer, kl)


def blitz(case: Case) -> Contender:
    from blitz.losses import kl_divergence_from_nn
    from blitz.modules import BayesianLinear

    def layer(inputs: int, outputs: int) -> nn.Module:
        return BayesianLinear(inputs, outputs, posterior_rho_init=-4.6)

    return torch_peer(case, layer, kl_divergence_from_nn)
