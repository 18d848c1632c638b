"""The sanity rows' network: plain torch's, by hand, on one column or both; blind to the other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pmmo.model.build import build_system
from pmmo.model.systems import Batch, Sizes
from pmmo.own_movies.whole_set import predict_set
from pmmo.params import load_params
from pmmo.training.evaluation import final_predictions, predict
from pmmo.training.loop import train_cycle, train_cycles

ROWS = load_params(Path(__file__).parents[2] / "params.yaml").rows
N, T, I, G = 20, 5, 7, 3
SMALL = {"width": 4, "maxout_units": 6, "dropout": 0.0, "device": "cpu"}
WIDTHS = {"text": T, "image": I, "both": T + I}
EACH = pytest.mark.parametrize("inputs", WIDTHS)


def build(inputs, **changes):
    torch.manual_seed(0)
    settings = replace(ROWS[f"mlp-{inputs}"], **(SMALL | changes))
    return build_system(settings, Sizes(T, I, G, N))


def movies(rows=N, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    text = 2 * torch.randn(rows, T, generator=generator) + 1
    image = torch.randn(rows, I, generator=generator).relu()
    both = torch.cat((text, image), 1)
    return Batch(text, image, (both[:, [0, T, T + 1]] > 0.5).float())


def columns(batch: Batch, inputs: str) -> torch.Tensor:
    return {"text": batch.text, "image": batch.image, "both": torch.cat(batch[:2], 1)}[inputs]


class TwoPieces(nn.Module):
    """Maxout as the larger of two linear functions, whose units alternate in one weight."""

    def __init__(self, weight, bias):
        super().__init__()
        self.parts = [(weight[piece::2], bias[piece::2]) for piece in (0, 1)]

    def forward(self, x):
        first, second = (x @ weight.T + bias for weight, bias in self.parts)
        return torch.maximum(first, second)


@EACH
def test_the_forward_pass_is_plain_torchs(inputs):
    system, batch = build(inputs), movies()
    for parameter in system.parameters():  # batch norm's too, away from 1 and 0
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    w = system.state_dict()
    assert {name.split(".")[0] for name in w} == {"classifier"}  # no fusion, no other batch norm
    x = columns(batch, inputs)
    assert w["classifier.0.weight"].shape == (WIDTHS[inputs],)
    for norm, maxout in ((0, 1), (3, 4)):
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        x = x * w[f"classifier.{norm}.weight"] + w[f"classifier.{norm}.bias"]
        x = TwoPieces(*(w[f"classifier.{maxout}.linear.{kind}"] for kind in ("weight", "bias")))(x)
    logits = x @ w["classifier.6.weight"].T + w["classifier.6.bias"]
    probabilities, gate = predict(system, batch.text, batch.image)
    torch.testing.assert_close(probabilities, torch.sigmoid(logits))
    assert gate is None


@pytest.mark.parametrize(("inputs", "other"), [("text", "image"), ("image", "text")])
def test_one_column_alone_decides(inputs, other):
    system, batch = build(inputs), movies()
    before, _ = predict(system, batch.text, batch.image)
    changed = batch._replace(**{other: movies(seed=1)._asdict()[other]})
    assert torch.equal(predict(system, changed.text, changed.image)[0], before)
    changed = batch._replace(**{inputs: movies(seed=1)._asdict()[inputs]})
    assert not torch.equal(predict(system, changed.text, changed.image)[0], before)


@EACH
def test_what_the_reports_need_is_there_but_for_a_gate(inputs):
    system, batch = build(inputs), movies()
    sets = dict.fromkeys(("dev", "test"), batch[:2])
    found = final_predictions(system, sets, (batch.text.mean(0), batch.image.mean(0)), seed=0)
    own = {"dev", "test", "dev_running", "test_running"}
    assert set(found) == own | {"test_text_mean", "test_image_mean"}
    unseen = {"text": "test_image_mean", "image": "test_text_mean"}
    if inputs in unseen:  # the ablation of the other column takes nothing away
        assert torch.equal(found[unseen[inputs]], found["test"])


@EACH
def test_movies_in_batches_are_predicted_as_all_at_once(inputs):
    system, batch = build(inputs), movies()

    def batches():
        return zip(batch.text.split(6), batch.image.split(6), strict=True)

    found = predict_set(system, batches, batch_norm="evaluation_set", samples=0, seed=0)
    whole, _ = predict(system, batch.text, batch.image)
    parts = torch.cat([part.probabilities for part in found])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@EACH
def test_it_learns_its_column_and_cycles_together_are_those_apart(inputs):
    splits = {name: movies(60, seed) for seed, name in enumerate(("train", "dev", "test"))}
    settings = replace(ROWS[f"mlp-{inputs}"], **SMALL, epochs=30, batch_size=20)
    found = train_cycle(settings, splits, 0)
    losses = [line["loss"] for line in found.curves]
    assert losses[-1] < 0.8 * losses[0]
    # genre 0 is in the text, genres 1 and 2 in the image
    seen = {"text": [0], "image": [1, 2], "both": [0, 1, 2]}[inputs]
    assert min(found.summary["test_per_genre"][genre] for genre in seen) > 0.75
    few = replace(settings, epochs=2)
    for together in train_cycles(few, splits, [0, 1]):
        apart = train_cycle(few, splits, together.summary["cycle"])
        for name, value in apart.predictions.items():
            torch.testing.assert_close(together.predictions[name], value, rtol=1e-4, atol=1e-5)


def test_without_dropout_and_pieces_apart_it_is_a_linear_model():
    """Maxout whose two pieces are equal is linear: then the logits are affine in the inputs."""
    system, batch = build("both", batch_norm=False, maxout_layers=1), movies()
    with torch.no_grad():
        linear = system.classifier[0].linear
        linear.weight[1::2], linear.bias[1::2] = linear.weight[::2], linear.bias[::2]
    x, output = columns(batch, "both"), system.classifier[2]
    expected = (x @ linear.weight[::2].T + linear.bias[::2]) @ output.weight.T + output.bias
    found, _ = predict(system, batch.text, batch.image)
    torch.testing.assert_close(torch.logit(found), expected, rtol=1e-4, atol=1e-4)
