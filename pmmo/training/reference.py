"""How far a movie's features are from those of training: far.safetensors beside the models.

The distance of a movie is the root mean square of its standardised values, (x - mean) / sd with
the means and standard deviations of the training movies; text and image count alike, whatever
their widths. Movies of training are at 1 on average. N movies, T and I values of text and image.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pmmo.core.errors import PmmoError
from pmmo.core.writing import write_bytes
from pmmo.decisions.stored import REMEDY
from pmmo.model.systems import Batch

FAR = "far.safetensors"
PERCENTILE = 0.99  # of the distances on dev; what lies beyond is far
COLUMNS = 512  # at a time in float64


@dataclass(frozen=True, eq=False)
class Reference:
    """Of the training movies, all float32."""

    text_mean: Tensor  # (T,)
    text_sd: Tensor  # (T,), above 0
    image_mean: Tensor  # (I,)
    image_sd: Tensor  # (I,), above 0
    limit: Tensor  # ()

    def distances(self, text: Tensor, image: Tensor) -> Tensor:
        """(N,) in float32, of text (N, T) and image (N, I)."""
        squares = [
            ((values.double() - mean) / sd).square().mean(1)
            for values, mean, sd in (
                (text.cpu(), self.text_mean, self.text_sd),
                (image.cpu(), self.image_mean, self.image_sd),
            )
        ]
        return torch.stack(squares).mean(0).sqrt().float()


def reference_of(train: Batch, dev: Batch) -> Reference:
    """Means and deviations of the training movies; the limit is a quantile of dev's distances."""
    found = {}
    for name, values in (("text", train.text), ("image", train.image)):
        parts = [
            torch.std_mean(part.cpu().double(), 0, correction=0)
            for part in values.split(COLUMNS, 1)
        ]
        sd, mean = (torch.cat(column).float() for column in zip(*parts, strict=True))
        found[f"{name}_mean"] = mean
        found[f"{name}_sd"] = torch.where(sd > 0, sd, 1.0)  # a column that never varies
    plain = Reference(**found, limit=torch.zeros(()))
    pairs = zip(dev.text.split(1024), dev.image.split(1024), strict=True)
    of_dev = torch.cat([plain.distances(*pair) for pair in pairs])
    return Reference(**found, limit=of_dev.quantile(PERCENTILE))


def write_reference(path: Path, reference: Reference) -> None:
    names = [field.name for field in fields(Reference)]
    write_bytes(path, save({name: getattr(reference, name) for name in names}))


def read_reference(path: Path, text: int, image: int) -> Reference:
    """The reference of a model with inputs of these widths; PmmoError if it is of another."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise PmmoError(f"{path}: is no safetensors file, or damaged ({error}). {REMEDY}") from None
    widths = {"text_mean": [text], "text_sd": [text], "image_mean": [image], "image_sd": [image]}
    shapes: dict[str, list[int]] = widths | {"limit": []}
    for name in sorted(shapes.keys() | found.keys()):
        tensor = found.get(name, torch.empty(0))
        fits = tensor.dtype == torch.float32 and list(tensor.shape) == shapes.get(name)
        if not fits or not tensor.isfinite().all() or (name.endswith("_sd") and tensor.min() <= 0):
            raise PmmoError(
                f"{path}: does not fit model.json beside it (tensor {name!r:.100}). {REMEDY}"
            )
    return Reference(**found)
