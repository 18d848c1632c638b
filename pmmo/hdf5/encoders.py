"""Which encoders made the features of a file: `embed` records it, and a trained model keeps it.

The record is `encoders` in the file attribute `provenance`. `fetch` and `extract` hand it on, so
that it stands in model.json too. A file without it, such as the published one, fits every model.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pmmo.core.errors import PmmoError
from pmmo.core.names import Provenance
from pmmo.core.text import LONGEST, hides

KEY = "encoders"  # of the provenance
INPUTS = ("text", "image")


@dataclass(frozen=True)
class Identity:
    """An encoder and its weights."""

    name: str  # kind, and architecture where the weights do not tell: timm:resnet50
    file: str  # last part of the weights' path, for people
    version: str  # of the package, or of the spaCy model
    sha256: str  # of the weights

    def __str__(self) -> str:
        return f"{self.name} ({self.file}, sha256 {self.sha256[:12]}…)"


class Embedded(Provenance, total=False):
    """The origin of movies whose features may have been made by `embed`."""

    encoders: dict[str, dict[str, str]]  # text, image -> Identity


def record(identities: Mapping[str, Identity]) -> dict[str, dict[str, str]]:
    """What `read_encoders` reads."""
    return {name: asdict(identity) for name, identity in identities.items()}


def read_encoders(provenance: object) -> dict[str, Identity]:
    """The encoders of text and image, or none; ValueError for a record of another form."""
    found = provenance.get(KEY) if isinstance(provenance, Mapping) else None
    if found is None:
        return {}
    if not isinstance(found, Mapping) or set(found) != set(INPUTS):
        raise ValueError("its encoders are not those of text and image")
    try:
        identities = {name: Identity(**found[name]) for name in INPUTS}
    except TypeError:
        raise ValueError("an encoder is not name, file, version and sha256") from None
    for identity in identities.values():
        for text in asdict(identity).values():
            if not isinstance(text, str) or not 0 < len(text) <= LONGEST or hides(text):
                raise ValueError("an encoder's name, file, version or sha256 is no printable text")
        if not re.fullmatch("[0-9a-f]{64}", identity.sha256):
            raise ValueError("an encoder's sha256 is not 64 hexadecimal digits")
    return identities


def check_same_encoders(
    features: Mapping[str, Identity], model: Mapping[str, Identity], name: str
) -> None:
    """PmmoError where the features of the file `name` are not of the model's encoders.

    What has no record fits. The version of a package may differ.
    """
    for column in INPUTS:
        if column not in features or column not in model:
            continue
        ours, theirs = features[column], model[column]
        if (ours.name, ours.sha256) != (theirs.name, theirs.sha256):
            raise PmmoError(
                f"{name}: its {column} features are of {ours}, the model was trained on those of "
                f"{theirs}. Embed these movies with the model's encoder, or take a model that was "
                "trained on features of theirs."
            )
