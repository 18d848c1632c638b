"""From Python: `pmmo.load("runs/experiment").predict(text, image)`; the command does the same.

N movies, of which B in a batch, G genres; T and I are the widths of text and image.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pmmo.core.errors import PmmoError
from pmmo.data.value_checks import nan_rows, usable
from pmmo.decisions.stored import DECISION, STATISTICS, Fitted, mean_of
from pmmo.decisions.temperature import calibrate
from pmmo.own_movies.inside import check_samples, fused_by, weights_of
from pmmo.own_movies.saved_model import (
    Model,
    folder_of,
    load_decision,
    load_ensemble,
    load_model,
    load_reference,
)
from pmmo.own_movies.whole_set import passes, predict_set
from pmmo.training.device import choose_device
from pmmo.training.evaluation import own_samples
from pmmo.training.reference import Reference

Statistics = Literal["running", "evaluation_set"]
PER_GENRE: Final = "per_genre"
BATCH = 1024
INTERVAL = (0.05, 0.95)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The genres of N movies."""

    genres: tuple[str, ...]  # G
    probabilities: np.ndarray  # (N, G)
    decisions: np.ndarray  # (N, G) bool
    # over the posterior draws of all models, or over the models; None where there are not two
    sd: np.ndarray | None  # (N, G)
    low: np.ndarray | None  # (N, G) the 5th percentile
    high: np.ndarray | None  # (N, G) the 95th
    fewest: np.ndarray | None  # (N,) number of genres that a draw decides: the 5th percentile
    most: np.ndarray | None  # (N,) the 95th
    # by movie
    unsure: np.ndarray  # (N,) 1 - the probability of the likeliest genre
    far: np.ndarray | None  # (N,) bool: further from training than 99 in 100 movies of dev

    def __getitem__(self, rows: np.ndarray) -> "Predictions":
        """Those of some movies, in that order."""
        columns = {name: getattr(self, name) for name in by_movie()}
        taken: dict[str, Any] = {n: None if c is None else c[rows] for n, c in columns.items()}
        return Predictions(genres=self.genres, **taken)

    @classmethod
    def join(cls, parts: list["Predictions"]) -> "Predictions":
        """Those of several batches, one after the other."""
        joined: dict[str, Any] = {"genres": parts[0].genres}
        for name in by_movie():
            values = [getattr(part, name) for part in parts]
            joined[name] = None if values[0] is None else np.concatenate(values)
        return cls(**joined)


def by_movie() -> list[str]:
    """The fields of Predictions with a row per movie."""
    return [field.name for field in fields(Predictions) if field.name != "genres"]


class FusedMovies(NamedTuple):
    """What the fusion makes of N movies, by each of C models; by K posterior draws (C, K, N, H)."""

    z: np.ndarray  # (C, N, H) fused embeddings, Eq. 2
    gate: np.ndarray | None  # (C, N, H) in (0, 1); 1 leans on the image; None: there is none


@dataclass(frozen=True, eq=False)
class Predictor:
    """One model or an ensemble, and how its probabilities become genres."""

    models: tuple[Model, ...]  # in the order of their mean
    batch_norm: Statistics
    samples: int  # K, posterior draws of each model
    threshold: float | np.ndarray  # one, or of each genre (G,)
    of_shown: bool  # whether it is compared with the calibrated probabilities
    temperature: float | None  # None: the probabilities are as the models give them
    reference: Reference | None  # what is far from training
    device: torch.device

    @property
    def genres(self) -> tuple[str, ...]:
        return self.models[0].genres

    def predict(self, text: ArrayLike, image: ArrayLike, batch_size: int = BATCH) -> Predictions:
        """The genres of movies with `text` (N, T) and `image` (N, I), arrays or tensors of numbers.

        A movie without text has NaN throughout in its row. PmmoError names a row that cannot be
        predicted. `batch_size` movies are on the device at once.
        """
        columns = self._checked(text, image)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            parts = (torch.from_numpy(column).split(batch_size) for column in columns)
            for own_text, own_image in zip(*parts, strict=True):
                yield own_text.to(self.device), own_image.to(self.device)

        found = Predictions.join(list(self.predict_batches(batches)))
        if len(bad := not_finite(found)):
            raise PmmoError(f"row {bad[0]}: the model gives no finite probability")
        return found

    def predict_batches(
        self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    ) -> Iterator[Predictions]:
        """Predictions of each batch; `batches` starts over each time it is called."""
        of_models = [
            predict_set(
                model.system,
                batches,
                batch_norm=self.batch_norm,
                samples=self.samples,
                seed=model.seed,
            )
            for model in self.models
        ]
        for columns, *parts in zip(batches(), *of_models, strict=True):
            own = np.stack([part.probabilities.cpu().numpy() for part in parts])  # (C, B, G)
            draws = [part.draws.cpu().numpy() for part in parts if part.draws is not None]
            yield self._decided(own, np.concatenate(draws) if draws else own, self._far(*columns))

    def _far(self, text: Tensor, image: Tensor) -> np.ndarray | None:
        if self.reference is None:
            return None
        return (self.reference.distances(text, image) > self.reference.limit).numpy()

    def _decided(self, own: np.ndarray, draws: np.ndarray, far: np.ndarray | None) -> Predictions:
        """From the models' probabilities (C, B, G) and the draws of all of them (CK, B, G)."""
        found = mean_of(own) if len(own) > 1 else own[0]  # (B, G)
        shown, drawn = self._calibrated(found), self._calibrated(draws)
        spread: dict[str, Any] = dict.fromkeys(("sd", "low", "high", "fewest", "most"))
        if len(draws) > 1:
            counts = ((drawn if self.of_shown else draws) > self.threshold).sum(axis=2)  # (CK, B)
            spread["sd"] = drawn.std(axis=0, ddof=1)
            spread["low"], spread["high"] = np.quantile(drawn, INTERVAL, axis=0)
            spread["fewest"], spread["most"] = np.quantile(
                counts, INTERVAL, axis=0, method="inverted_cdf"
            )
        return Predictions(
            genres=self.genres,
            probabilities=shown,
            decisions=(shown if self.of_shown else found) > self.threshold,
            unsure=1 - shown.max(axis=1),
            far=far,
            **spread,
        )

    def _calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        if self.temperature is None:
            return probabilities
        return calibrate(probabilities, self.temperature)

    def weights(self, samples: int = 0) -> dict[str, np.ndarray]:
        """The weights of the fusion layers of each of the C models, (C, ...) by name.

        Of a system with a posterior they are its means, or K = `samples` draws (C, K, ...).
        """
        check_samples(self.models[0], samples)
        found = [weights_of(model, samples, self.device) for model in self.models]
        return {name: joined([own[name] for own in found]) for name in found[0]}

    def fused(self, text: ArrayLike, image: ArrayLike, samples: int = 0) -> FusedMovies:
        """z and gate of movies, which are those of `predict`; by posterior means, or K draws.

        All movies are on the device at once.
        """
        check_samples(self.models[0], samples)
        columns = [torch.from_numpy(column) for column in self._checked(text, image)]
        own_text, own_image = (column.to(self.device) for column in columns)
        found = [fused_by(m, own_text, own_image, samples, self.batch_norm) for m in self.models]
        gates = [own.gate for own in found if own.gate is not None]
        return FusedMovies(joined([own.z for own in found]), joined(gates) if gates else None)

    def passes(self) -> int:
        """How often the movies are read."""
        return 1 + sum(passes(model.system, self.batch_norm) for model in self.models)

    def by_these_movies(self) -> bool:
        """Whether batch norm takes the statistics of the movies that are predicted."""
        return self.passes() > 1 + len(self.models)

    def _checked(self, text: ArrayLike, image: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Both as float32 arrays (N, T) and (N, I), movies without text as zeros."""
        sizes, found = self.models[0].system.sizes, []
        for name, values, width in (("text", text, sizes.text), ("image", image, sizes.image)):
            array = as_array(values, name)
            if array.ndim != 2 or array.shape[1] != width or not len(array):
                raise PmmoError(
                    f"{name} has the shape {array.shape}; expected (movies, {width}), made as the "
                    "features of the training movies were made"
                )
            if name == "text" and self.models[0].nan_text == "zeros":
                array[nan_rows(array)] = 0
            if len(bad := np.argwhere(~usable(array))):
                row, column = bad[0].tolist()
                raise PmmoError(
                    f"{name}, row {row}, column {column}: {array[row, column]:g} is no number that "
                    "can be squared"
                )
            found.append(array)
        if len(found[0]) != len(found[1]):
            raise PmmoError(f"text has {len(found[0])} movies, image {len(found[1])}")
        if len(found[0]) == 1 and self.by_these_movies():
            raise PmmoError("one movie has no statistics of its own; take batch_norm='running'")
        return found[0], found[1]


def joined(of_models: list[Tensor]) -> np.ndarray:
    """The tensors of all models, with an axis of models in front."""
    return torch.stack(of_models).detach().cpu().numpy()


def as_array(values: ArrayLike | Tensor, name: str) -> np.ndarray:
    """A copy in float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().float().numpy()
    try:
        with np.errstate(over="ignore"):  # what is too large is refused by row
            return np.array(values, dtype=np.float32)
    except (ValueError, TypeError):
        raise PmmoError(f"{name} is no array of numbers; expected (movies, width)") from None


def not_finite(part: Predictions) -> np.ndarray:
    """The movies of which a probability or its spread is no number."""
    columns = [column for column in (part.probabilities, part.sd) if column is not None]
    return np.flatnonzero(~np.isfinite(np.stack(columns)).all(axis=(0, 2)))


def load_predictor(
    run: str | PathLike[str],
    *,
    batch_norm: Statistics = "running",
    ensemble: bool | None = None,
    threshold: float | Literal["per_genre"] | None = None,
    calibrated: bool | None = None,
    samples: int | None = None,
    device: str = "auto",
) -> Predictor:
    """The models of a run's folder, or of a model's file in it.

    What is None is as the run decided it on dev (decision.json), by running statistics. With
    `batch_norm="evaluation_set"` it is as the run tested its best model: alone, at one threshold,
    not calibrated. The latter two hold, too, where `ensemble` is not as decided. `threshold` is one
    number for the probabilities that are shown, or "per_genre".
    `samples` posterior draws of each model give the spread (default: as many as its settings say).
    PmmoError says what is wrong.
    """
    path, place = Path(run), choose_device(device)
    if isinstance(threshold, np.floating):  # of 32 bits it is no float of Python
        threshold = float(threshold)
    if batch_norm not in STATISTICS:
        raise PmmoError(f"batch_norm is {batch_norm!r:.50}; allowed: {' or '.join(STATISTICS)}")
    best = load_model(path, place)
    decision, settings = load_decision(path, best), best.system.settings
    statistics = batch_norm if settings.batch_norm else "running"
    if decision is not None and statistics == "running":
        ensemble = decision.ensemble if ensemble is None else ensemble
        if ensemble == decision.ensemble:  # the choice was made for these models alone
            calibrated = decision.calibrated if calibrated is None else calibrated
            threshold = PER_GENRE if threshold is None and decision.thresholds else threshold
    models: tuple[Model, ...] = (best,)
    if ensemble:
        if decision is None or len(decision.cycles) < 2:
            raise PmmoError(
                f"{folder_of(path)}: holds the best cycle's model alone, and an ensemble needs "
                "those of all cycles. Train the run with keep_models: all (params.yaml), or take "
                "the model alone: --single."
            )
        models = load_ensemble(path, best, decision, place)
    fitted: Fitted | None = None
    if threshold == PER_GENRE or calibrated:
        if decision is None or statistics not in decision.fitted:
            raise PmmoError(
                f"{folder_of(path) / DECISION}: has no thresholds and no temperature for batch "
                f"norm by {statistics}. If the file is not there, copy it from where the run was "
                "trained; otherwise leave out --thresholds and --calibrated, or take "
                "--batch-norm running."
            )
        fitted = decision.fitted[statistics]["ensemble" if ensemble else "single"]
    return Predictor(
        models=models,
        batch_norm=batch_norm,
        samples=number_of_samples(best, samples),
        threshold=threshold_of(threshold, fitted, settings.threshold),
        of_shown=isinstance(threshold, float),
        temperature=fitted.temperature if fitted and calibrated else None,
        reference=load_reference(path, best),
        device=place,
    )


def threshold_of(
    asked: float | str | None, fitted: Fitted | None, default: float
) -> float | np.ndarray:
    """One threshold, or one of each genre."""
    if asked is None:
        return default
    if asked == PER_GENRE and fitted is not None:
        return np.array(fitted.thresholds)
    if not isinstance(asked, float) or not 0 < asked < 1:
        raise PmmoError(f"threshold is {asked!r:.50}; allowed: a number between 0 and 1, per_genre")
    return asked


def number_of_samples(model: Model, asked: int | None) -> int:
    """K: what was asked for, else what the settings say; none for a system without a posterior."""
    if asked is None:
        return model.system.settings.posterior_samples or 0
    check_samples(model, asked)
    if asked == 1:
        raise PmmoError(
            "samples is 1: one draw has no spread. Give 2 or more, or 0 to leave sd empty."
        )
    if asked == 0 and own_samples(model.system):
        raise PmmoError(
            "samples is 0: this model's probabilities are means over samples (prediction: samples "
            "in its settings). Leave samples out, or give a number above 0."
        )
    return asked
