"""`python -m pmmo predict`: a run's models and a movie file -> one CSV line per movie and genre."""

import csv
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pmmo.core.errors import PmmoError
from pmmo.core.outs import check_output
from pmmo.core.progress import Progress
from pmmo.core.text import cell, printable
from pmmo.core.writing import growing
from pmmo.hdf5.encoders import check_same_encoders
from pmmo.own_movies.features import FeatureBatch, Features, open_features
from pmmo.own_movies.predictor import BATCH, Predictions, Predictor, load_predictor, not_finite
from pmmo.own_movies.saved_model import model_files
from pmmo.training.device import choose_device, prepare_process

COLUMNS = ("id", "genre", "probability", "sd", "decision", "low", "high")
OF_MOVIE = ("fewest", "most", "unsure", "far")  # columns alike in all lines of a movie
FEW = 500  # movies to normalise by; of 300 a fifth get other genres than in a set of 781


class Part(NamedTuple):
    """Some movies with their predictions."""

    ids: list[str]
    without_text: int
    found: Predictions


def predict_file(
    model: Path,
    movies: Path,
    output: Path,
    *,
    split: str | None = None,
    order: Literal["file", "unsure"] = "file",
    batch_size: int = BATCH,
    **options: Any,
) -> str:
    """Write the predictions of the models of a run for the movies of a file; says what it did.

    `split` takes the movies of train, dev or test alone; with `order` "unsure" those come first of
    which the model is least sure. `options` are those of `load_predictor`. `output` appears whole
    or not at all; PmmoError says what is wrong.
    """
    check_output(output, movies, *model_files(model))
    threads = torch.get_num_threads()
    prepare_process(choose_device("auto"))
    torch.set_num_threads(threads)  # unlike training, there is one process
    predictor = load_predictor(model, **options)
    nan_text = predictor.models[0].nan_text
    with open_features(movies, split=split, nan_text=nan_text) as features:
        check_fit(predictor, features)
        work = predictor.passes() * len(features.rows) * features.row_bytes
        with Progress("predict", work) as progress:
            parts = predictions(predictor, features, batch_size, progress)
            if order == "unsure":
                parts = least_sure_first(parts)
            without_text, far = write_predictions(output, predictor, parts)
    lines = describe(predictor, output, len(features.rows))
    if without_text:
        lines.append(f"Movies without text, taken as zeros: {without_text:,}.")
    if far:
        lines.append(f"Movies far from those of training: {far:,}.")
    return "\n".join(lines)


def check_fit(predictor: Predictor, features: Features) -> None:
    """PmmoError where the movies are not such as the models were trained on."""
    name, sizes = features.source.name, predictor.models[0].system.sizes
    check_same_encoders(features.encoders, predictor.models[0].encoders, name)
    for column, wanted in (("features", sizes.text), ("vgg_features", sizes.image)):
        found = features.columns[column].shape[1]
        if found != wanted:
            raise PmmoError(
                f"{name}: dataset {column!r} has width {found:,}, the model was trained on "
                f"{wanted:,}. Make the features as those of the training movies were made, or "
                "take a model that was trained on such features."
            )
    movies = len(features.rows)
    if not predictor.by_these_movies():
        return
    if movies == 1:
        raise PmmoError(
            f"{name}: it has one movie, which has no statistics of its own to normalise by "
            "(--batch-norm evaluation_set). Give more movies, or leave the option out."
        )
    if movies < FEW:
        print(
            f"{name}: {movies:,} movies are few to normalise by: among 50, almost every second "
            "movie got a genre more or less than among 781, among 300 every fifth. Without "
            "--batch-norm evaluation_set a movie's genres do not depend on its company.",
            file=sys.stderr,
        )


def predictions(
    predictor: Predictor, features: Features, batch_size: int, progress: Progress
) -> Iterator[Part]:
    """Each batch of movies with its predictions; `progress` counts the bytes that were read."""
    latest: FeatureBatch

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal latest
        for latest in features.batches(batch_size):
            columns = (latest.text, latest.image)
            text, image = (torch.from_numpy(x).to(predictor.device) for x in columns)
            yield text, image
            progress.moved(len(text) * features.row_bytes)

    for predicted in predictor.predict_batches(batches):
        if len(bad := not_finite(predicted)):
            raise PmmoError(
                f"{features.source.name}: the model gives no finite probability for the movie "
                f"{latest.ids[bad[0]]!r}. Are its numbers of the size of those in training, and is "
                "the model whole?"
            )
        yield Part(latest.ids, latest.without_text, predicted)


def least_sure_first(parts: Iterator[Part]) -> Iterator[Part]:
    """All movies as one part, those first of which the model is least sure."""
    ids, without_text, found = zip(*parts, strict=True)
    joined, names = Predictions.join(list(found)), list(chain.from_iterable(ids))
    rows = np.argsort(-joined.unsure, kind="stable")
    yield Part([names[row] for row in rows], sum(without_text), joined[rows])


def write_predictions(output: Path, predictor: Predictor, parts: Iterator[Part]) -> tuple[int, int]:
    """Write the CSV; the numbers of movies without text, and of those far from training."""
    without_text = far = 0
    with growing(output) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *OF_MOVIE))
        genres = [cell(genre) for genre in predictor.genres]
        for ids, empty, predicted in parts:
            without_text += empty
            far += 0 if predicted.far is None else int(predicted.far.sum())
            by_genre = [
                as_text(getattr(predicted, name), predicted.decisions.shape)
                for name in ("probabilities", "sd", "decisions", "low", "high")
            ]
            of_movies = [as_text(getattr(predicted, name), (len(ids),)) for name in OF_MOVIE]
            for movie, *columns, own in zip(
                map(cell, ids), *by_genre, zip(*of_movies, strict=True), strict=True
            ):
                for line in zip(genres, *columns, strict=True):
                    writer.writerow((movie, *line, *own))
    return without_text, far


def as_text(values: np.ndarray | None, shape: tuple[int, ...]) -> list:
    """Six significant digits of each, in nested lists; empty texts where there are no values."""
    if values is None:
        return np.full(shape, "").tolist()
    return np.vectorize("{:.6g}".format, otypes=[object])(values.astype(float)).tolist()


def describe(predictor: Predictor, output: Path, movies: int) -> list[str]:
    best, count = predictor.models[0], len(predictor.models)
    settings, several = best.system.settings, isinstance(predictor.threshold, np.ndarray)
    what = f"{movies:,} movies, {len(predictor.genres)} genres"
    who = f"mean of {count} cycles" if count > 1 else f"cycle {best.cycle}"
    how = "one threshold per genre" if several else f"{predictor.threshold:g}"
    lines = [
        f"{printable(str(output))}: {what}, by {settings.label} ({settings.name}, {who}), "
        f"decided at {how}.",
    ]
    if predictor.temperature is not None:
        lines.append(f"Probabilities are calibrated (temperature {predictor.temperature:.2f}).")
    if predictor.samples:
        draws = f"{predictor.samples} draws from the posterior" + " of each model" * (count > 1)
        lines.append(f"sd is over {draws}.")
    elif count > 1:
        lines.append(f"sd is over the {count} models.")
    if settings.batch_norm:
        whose = f"these {movies:,} movies" if predictor.by_these_movies() else "training"
        lines.append(f"Batch norm took the statistics of {whose} ({predictor.batch_norm}).")
    return lines
