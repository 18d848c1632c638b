"""What is far from the training movies, against scikit-learn; and files that say otherwise."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.preprocessing import StandardScaler

from pmmo.core.errors import PmmoError
from pmmo.model.systems import Batch
from pmmo.training.reference import read_reference, reference_of, write_reference

T, I = 5, 700  # more columns than are standardised at a time


def movies(count: int, seed: int) -> Batch:
    random = np.random.default_rng(seed)
    text = random.normal(3, 2, (count, T)).astype(np.float32)
    image = np.maximum(random.normal(0, 9, (count, I)), 0).astype(np.float32)
    image[:, 7] = 2.5  # never varies
    return Batch(torch.from_numpy(text), torch.from_numpy(image), torch.zeros(count, 1))


TRAIN, DEV = movies(200, 0), movies(100, 1)


def plain(batch: Batch) -> np.ndarray:
    """Distances by scikit-learn: a column that never varies is divided by 1, there too."""
    squares = []
    for train, values in ((TRAIN.text, batch.text), (TRAIN.image, batch.image)):
        scaler = StandardScaler().fit(train.double().numpy())
        squares.append((scaler.transform(values.double().numpy()) ** 2).mean(axis=1))
    return np.sqrt(np.mean(squares, axis=0))


def test_a_distance_is_that_of_standardised_features():
    reference = reference_of(TRAIN, DEV)
    for batch in (TRAIN, DEV):
        found = reference.distances(batch.text, batch.image)
        np.testing.assert_allclose(found, plain(batch), rtol=1e-5)
    assert reference.limit == pytest.approx(np.quantile(plain(DEV), 0.99), rel=1e-5)
    assert plain(TRAIN).mean() == pytest.approx(1, abs=0.02)
    far = reference.distances(DEV.text, DEV.image) > reference.limit
    assert far.sum() == 1
    assert (reference.distances(DEV.text * 1e18, DEV.image) > reference.limit).all()


def changed(name: str, value) -> dict:
    def change(tensors: dict) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("text_sd", None),
        changed("limit", torch.tensor(float("nan"))),
        changed("limit", torch.zeros(1)),
        changed("image_sd", torch.zeros(I)),
        changed("text_mean", torch.zeros(T + 1)),
        changed("text_mean", torch.zeros(T, dtype=torch.float64)),
        changed("other", torch.zeros(2)),
    ],
)
def test_a_reference_of_another_model_is_refused(tmp_path, change):
    path = tmp_path / "far.safetensors"
    write_reference(path, reference_of(TRAIN, DEV))
    assert read_reference(path, T, I).limit == reference_of(TRAIN, DEV).limit
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(PmmoError, match=r"far.safetensors: does not fit model.json beside it"):
        read_reference(path, T, I)
    path.write_bytes(b"none")
    with pytest.raises(PmmoError, match=r"far.safetensors: is no safetensors file, or damaged"):
        read_reference(path, T, I)
