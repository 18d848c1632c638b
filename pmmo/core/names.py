"""Names that several packages share."""

from pathlib import Path
from typing import TypedDict

SCALES = ("demo", "paper")  # of params.yaml
SPLITS = ("train", "dev", "test")
AVERAGES = ("micro", "macro", "weighted", "samples")  # of the F-scores (section 4)
EXPERIMENT = "experiment"  # the row of the system under study
COMPARISON = Path("reports/comparison.json")  # of that system with a row
NOT_MEASURED = {"verdict": "not measured"}  # until the stage `comparison` has run
CATALOGUE = "movies.json"  # of data/tensors: ids, genre names, splits, origin
LOSS_TERMS = ("loss", "loss_a", "log_likelihood", "kl", "kl_factor", "penalty", "loss_c")
CURVES = (*(f"dev_{average}" for average in AVERAGES), "train_weighted", *LOSS_TERMS)  # by epoch


class Provenance(TypedDict):
    """Where movies come from, as this project writes it into their file."""

    kind: str  # synthetic | file | http
    source: str
    rows: int
    sha256: dict[str, str]  # by column
    pinned: bool
    note: str
