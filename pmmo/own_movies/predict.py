"""`python -m pmmo predict`: a kept model and a movie file -> one CSV line per movie and genre."""

import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pmmo.core.errors import PmmoError
from pmmo.core.outs import check_output
from pmmo.core.progress import Progress
from pmmo.core.text import cell, printable
from pmmo.core.writing import growing
from pmmo.hdf5.encoders import check_same_encoders
from pmmo.own_movies.features import FeatureBatch, Features, open_features
from pmmo.own_movies.saved_model import Model, load_model, model_files
from pmmo.own_movies.whole_set import Predicted, passes, predict_set
from pmmo.training.device import choose_device, prepare_process
from pmmo.training.evaluation import decide, own_samples

COLUMNS = ("id", "genre", "probability", "sd", "decision")


def predict_file(
    model: Path,
    movies: Path,
    output: Path,
    *,
    split: str | None = None,
    samples: int | None = None,
    batch_norm: str | None = None,
    batch_size: int = 1024,
) -> str:
    """Write the predictions of the model of a run for the movies of a file; says what it did.

    `split` takes the movies of train, dev or test alone. `samples` posterior draws give the spread
    (default: as many as the run's settings say), `batch_norm` says by which statistics the
    batch-norm layers normalise (default: as the settings say). `output` appears whole or not at
    all; PmmoError says what is wrong.
    """
    check_output(output, movies, *model_files(model))
    threads = torch.get_num_threads()
    device = choose_device("auto")
    prepare_process(device)
    torch.set_num_threads(threads)  # unlike training, there is one process
    trained = load_model(model, device)
    samples = number_of_samples(trained, samples)
    batch_norm = batch_norm or trained.system.settings.batch_norm_eval
    with open_features(movies, split=split, nan_text=trained.nan_text) as features:
        check_fit(trained, features, batch_norm)
        work = passes(trained.system, batch_norm) * len(features.rows) * features.row_bytes
        with Progress("predict", work) as progress:
            parts = predictions(
                trained, features, batch_norm, samples, batch_size, device, progress
            )
            without_text = write_predictions(output, trained, parts)
    return describe(trained, output, len(features.rows), samples, batch_norm, without_text)


def number_of_samples(model: Model, asked: int | None) -> int:
    """K: what was asked for, else what the settings say; none for a system without a posterior."""
    settings = model.system.settings
    if settings.posterior_samples is None:
        if asked:
            raise PmmoError(
                f"--samples {asked}: the system {settings.system!r} has no posterior to draw from. "
                "Leave the option out; the column sd stays empty."
            )
        return 0
    if asked == 1:
        raise PmmoError(
            "--samples 1: one draw has no spread. Give 2 or more, or 0 to leave sd empty."
        )
    if asked == 0 and own_samples(model.system):
        raise PmmoError(
            "--samples 0: this model's probabilities are means over samples (prediction: samples "
            "in its settings). Leave the option out, or give a number above 0."
        )
    return settings.posterior_samples if asked is None else asked


def check_fit(model: Model, features: Features, batch_norm: str) -> None:
    """PmmoError where the movies are not such as the model was trained on."""
    name, sizes = features.source.name, model.system.sizes
    check_same_encoders(features.encoders, model.encoders, name)
    for column, found, wanted in (
        ("features", features.text_width, sizes.text),
        ("vgg_features", features.image_width, sizes.image),
    ):
        if found != wanted:
            raise PmmoError(
                f"{name}: dataset {column!r} has width {found:,}, the model was trained on "
                f"{wanted:,}. Make the features as those of the training movies were made, or "
                "take a model that was trained on such features."
            )
    if batch_norm == "evaluation_set" and len(features.rows) == 1 and passes_of(model) > 1:
        raise PmmoError(
            f"{name}: it has one movie, and this model normalises movies by what they have in "
            "common (batch_norm_eval: evaluation_set). Give more movies, or take the statistics "
            "of training: --batch-norm running."
        )


def passes_of(model: Model) -> int:
    return passes(model.system, "evaluation_set")


def predictions(
    model: Model,
    features: Features,
    batch_norm: str,
    samples: int,
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> Iterator[tuple[FeatureBatch, Predicted]]:
    """Each batch of movies with its predictions; `progress` counts the bytes that were read."""
    latest: FeatureBatch

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal latest
        for latest in features.batches(batch_size):
            text, image = (torch.from_numpy(x).to(device) for x in (latest.text, latest.image))
            yield text, image
            progress.moved(len(text) * features.row_bytes)

    for predicted in predict_set(
        model.system, batches, batch_norm=batch_norm, samples=samples, seed=model.seed
    ):
        check_finite(predicted, latest, features.source.name)
        yield latest, predicted


def check_finite(predicted: Predicted, batch: FeatureBatch, name: str) -> None:
    """PmmoError where a probability or its spread is none."""
    numbers = [column for column in predicted if column is not None]  # (B, G) each
    bad = ~torch.stack([column.isfinite().all(dim=1) for column in numbers]).all(dim=0)
    if bad.any():
        movie = batch.ids[int(bad.nonzero()[0])]
        raise PmmoError(
            f"{name}: the model gives no finite probability for the movie {movie!r}. Are its "
            "numbers of the size of those in training, and is the model whole?"
        )


def write_predictions(
    output: Path, model: Model, parts: Iterator[tuple[FeatureBatch, Predicted]]
) -> int:
    """Write the CSV; the number of movies without text."""
    threshold, without_text = model.system.settings.threshold, 0
    with growing(output) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        genres = [cell(genre) for genre in model.genres]
        for batch, predicted in parts:
            without_text += batch.without_text
            decisions = decide(predicted.probabilities, threshold).tolist()  # (B, G)
            values = as_text(predicted.probabilities)
            spreads = None if predicted.sd is None else as_text(predicted.sd)
            for row, movie in enumerate(map(cell, batch.ids)):
                for k, genre in enumerate(genres):
                    spread = spreads[row][k] if spreads else ""
                    writer.writerow((movie, genre, values[row][k], spread, decisions[row][k]))
    return without_text


def as_text(values: Tensor) -> list[list[str]]:
    """Six significant digits of each."""
    return [[f"{value:.6g}" for value in row] for row in values.tolist()]


def describe(
    model: Model, output: Path, movies: int, samples: int, batch_norm: str, without_text: int
) -> str:
    settings = model.system.settings
    what = f"{movies:,} movies, {len(model.genres)} genres"
    by = f"{settings.label} ({settings.name}, cycle {model.cycle})"
    lines = [
        f"{printable(str(output))}: {what}, by {by}, decided at {settings.threshold:g}.",
    ]
    if samples > 1:
        lines.append(f"sd is over {samples} draws from the posterior.")
    if passes_of(model) > 1:
        whose = f"these {movies:,} movies" if batch_norm == "evaluation_set" else "training"
        lines.append(f"Batch norm took the statistics of {whose} ({batch_norm}).")
    if without_text:
        lines.append(f"Movies without text, taken as zeros: {without_text:,}.")
    return "\n".join(lines)
