"""PM+MO: multimodal movie-genre classification with two objectives (Armitage et al. 2020)."""

from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmmo.own_movies.predictor import Predictor

__version__ = "0.1.0"  # of the last release; CITATION.cff and CHANGELOG.md name it


def load(run: str | PathLike[str], **options: Any) -> "Predictor":
    """The trained model of a run's folder, whose `predict(text, image)` gives genres.

    `options` are those of `pmmo.own_movies.predictor.load_predictor`.
    """
    from pmmo.own_movies.predictor import load_predictor  # here: torch takes a second

    return load_predictor(run, **options)
