"""Image encoders: the last hidden layer of a timm or torchvision model, weights from a file."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn

from pmmo.core.errors import PmmoError
from pmmo.embedding.encoder import Encoder, identity, optional, weights_at

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PIXELS = 50_000_000  # of a poster; a small file may unpack to any number


def open_image(path: Path) -> Image.Image:
    """A poster as RGB, turned as its EXIF says; ValueError says what is wrong with the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height <= PIXELS:
                return ImageOps.exif_transpose(image).convert("RGB")
            size = f"{image.width:,} x {image.height:,}"
    except Exception as error:  # a damaged file makes Pillow raise many things
        reason = getattr(error, "strerror", None) or f"{error!s:.100}" or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({reason})") from None
    raise ValueError(f"{path} has {size} pixels, too many")


def named_weights(text: str, kind: str) -> tuple[str, Path]:
    """NAME and WEIGHTS of NAME:WEIGHTS."""
    name, _, path = text.partition(":")
    if not name or not path:
        raise PmmoError(
            f"--image-encoder {kind}:{text}: expected {kind}:NAME:WEIGHTS, such as "
            f"{kind}:resnet50:resnet50.safetensors."
        )
    return name, weights_at(Path(path), "file of weights")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a checkpoint of torch, read without running code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it holds something else than tensors")
        return {key.removeprefix("module."): value for key, value in state.items()}
    except Exception as error:  # a damaged file makes torch raise many things
        reason = " ".join(str(error).split())[:200]
        raise PmmoError(
            f"{path}: cannot be read as weights ({reason}). Give a .safetensors file, or a "
            "checkpoint of torch with tensors alone."
        ) from None


def fill(model: nn.Module, path: Path, heads: Sequence[str]) -> None:
    """Give a model the weights of a file, which may also have the layers `heads` on top.

    PmmoError where a tensor is missing, has another shape, or belongs to no layer.
    """
    wanted, found = model.state_dict(), read_weights(path)
    own = {key: value for key, value in found.items() if not key.startswith(tuple(heads))}
    counters = [key for key in wanted if key.endswith("num_batches_tracked")]  # of no use here
    for key in sorted((wanted.keys() | own.keys()) - set(counters)):
        shapes = [tuple(x[key].shape) if key in x else "absent" for x in (own, wanted)]
        if shapes[0] != shapes[1]:
            raise PmmoError(
                f"{path}: is not of this model (tensor {key!r:.100}: {shapes[0]}, expected "
                f"{shapes[1]}). Give weights of the model that you name."
            )
        if own[key].is_floating_point() and not own[key].isfinite().all():
            raise PmmoError(f"{path}: tensor {key!r:.100} is not finite. Get the file again.")
    model.load_state_dict({key: value for key, value in own.items() if key in wanted}, strict=False)


def image_encoder(
    kind: str, path: Path, package: str, model: nn.Module, transform: Any, device: torch.device
) -> Encoder:
    model = model.to(device).eval()

    def encode(posters: Sequence[Tensor]) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.stack(list(posters)).to(device)).float().cpu().numpy()  # (n, W)

    shape = encode([transform(Image.new("RGB", (300, 400)))]).shape
    if len(shape) != 2:
        raise PmmoError(f"{kind}: gives an array of shape {shape}, expected a vector per image.")
    return Encoder(identity(kind, path, version(package)), shape[1], transform, encode)


def timm(text: str, device: torch.device) -> Encoder:
    name, path = named_weights(text, "timm")
    module = optional("timm")
    if not module.is_model(name):
        raise unknown(name, "timm")
    model = module.create_model(name, pretrained=False, num_classes=0)  # without classifier
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = [heads] if isinstance(heads, str) else heads
    fill(model, path, [f"{head}." for head in heads])
    config = module.data.resolve_model_data_config(model)
    transform = module.data.create_transform(**config, is_training=False)
    return image_encoder(f"timm:{name}", path, "timm", model, transform, device)


def torchvision(text: str, device: torch.device) -> Encoder:
    """Without its last linear layer: of vgg16, 4,096 numbers after the ReLU, as published."""
    name, path = named_weights(text, "torchvision")
    module = optional("torchvision").models
    if name not in module.list_models(module=module):
        raise unknown(name, "torchvision")
    model = module.get_model(name, weights=None)
    linear = [key for key, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise PmmoError(f"torchvision:{name}: has no linear layer at its end. Take another model.")
    parent, _, last = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    fill(model, path, [f"{linear[-1]}."])
    transform = module.get_model_weights(name).DEFAULT.transforms()
    return image_encoder(f"torchvision:{name}", path, "torchvision", model, transform, device)


def unknown(name: str, package: str) -> PmmoError:
    return PmmoError(f"{package} {version(package)} has no model {name!r:.60}. Check the name.")


IMAGE_ENCODERS: Mapping[str, Callable[[str, torch.device], Encoder]] = {
    "timm": timm,
    "torchvision": torchvision,
}
