"""README.md beside a model: what people, and hubs of models (its YAML), should know of it."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import yaml

from pmmo.config.settings import Settings
from pmmo.core.names import AVERAGES
from pmmo.core.text import markdown, name
from pmmo.data.movies import Movies
from pmmo.training.loop import Summary

LEVEL = 0.95
MOST_NAMES = 100  # of genres that the card lists; model.json has them all

CARD = """\
---
{front}---

# {label}

Genres of a movie from a vector of its plot and a vector of its poster. Row `{row}`, system
`{system}`, of pmmo, a reproduction of *Training Multimodal Systems for Classification with Multiple
Objectives* (Armitage et al., 2020).

## Data

{data}: train {train:,}, dev {dev:,}, test {test:,} movies.
Vectors: {text:,} values for text, {image:,} for image. Genres ({count}): {genres}.

## Scores

| F1 | {averages} |
|---|{rules}
| this model, dev | {on_dev} |
| this model, test | {on_test} |
| mean over cycles ({cycles}) with {level:.0%} interval, test | {mean} |

Of the row's cycles this model has the best weighted F1 on dev, which makes its own dev scores too
high: cycle {cycle} (seed {seed}), after epoch {epoch}. The interval (Student's t over the cycles)
covers other seeds, not other movies.

## Limits

{limits}

## Use

In a clone of pmmo, with this folder as MODEL (`docs/own-data.md`):

```
python -m pmmo predict MODEL movies.hdf5
```

Only `model.safetensors` and `model.json` are needed. In Python:

```python
from pathlib import Path
import torch
from pmmo.own_movies.saved_model import load_model

model = load_model(Path("MODEL"), torch.device("cpu"))  # model.system, model.genres
```
"""


def model_card(
    settings: Settings,
    rows: Mapping[str, int],
    cycles: Sequence[Summary],
    best: Summary,
    movies: Movies,
) -> str:
    """The card of the best cycle's model; `rows` are the movies of each split."""
    genres = [markdown(name(genre)) for genre in movies.genre_names]
    on_test = {average: [cycle["test"][average] for cycle in cycles] for average in AVERAGES}
    return CARD.format(
        front=front_matter(settings, best, movies),
        label=markdown(name(settings.label)),
        row=settings.name,
        system=settings.system,
        data="**Synthetic movies, not MM-IMDb**" if synthetic(movies) else markdown(source(movies)),
        **rows,
        text=movies.text.shape[1],
        image=movies.image.shape[1],
        count=len(genres),
        genres=listed(genres),
        averages=" | ".join(AVERAGES),
        rules="---:|" * len(AVERAGES),
        on_dev=" | ".join(f"{best['dev'][average]:.3f}" for average in AVERAGES),
        on_test=" | ".join(f"{best['test'][average]:.3f}" for average in AVERAGES),
        mean=" | ".join(map(interval, on_test.values())),
        level=LEVEL,
        cycles=len(cycles),
        cycle=best["cycle"],
        seed=best["seed"],
        epoch=best["best_epoch"],
        limits="\n".join(f"- {limit}" for limit in limits(settings, best, genres, movies)),
    )


def front_matter(settings: Settings, best: Summary, movies: Movies) -> str:
    """YAML with the keys that hubs read: of the scores, those of this model on test."""
    scores = [
        {"type": "f1", "name": f"F1 ({average})", "value": round(best["test"][average], 6)}
        for average in AVERAGES
    ]
    result = {
        "task": {"type": "multi-label-classification", "name": "genres of movies"},
        "dataset": {
            "type": name(str(movies.provenance["kind"])),
            "name": source(movies),
            "split": "test",
        },
        "metrics": scores,
    }
    front: dict[str, Any] = {
        "library_name": "pmmo",
        "license": "mit" if synthetic(movies) else "unknown",  # that of a user's movies decides
        "tags": ["multimodal", "multi-label-classification", settings.system],
        "metrics": ["f1"],
        "model-index": [{"name": settings.name, "results": [result]}],
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def limits(settings: Settings, best: Summary, genres: Sequence[str], movies: Movies) -> list[str]:
    found = [
        "It takes vectors that were made as those it was trained on, not posters or texts.",
        f"A genre is predicted where its probability is above {settings.threshold:g}.",
    ]
    if settings.train_on == "train+dev":
        found.append("It was trained on dev, too: its scores on dev are of movies that it knows.")
    if synthetic(movies):
        found.insert(0, "Its scores on synthetic movies say nothing about real ones.")
    if settings.batch_norm and settings.batch_norm_eval == "evaluation_set":
        found.append(
            "Batch norm takes the statistics of the movies that are predicted together: a movie's "
            "probabilities depend on its company (`--batch-norm running` avoids that)."
        )
    scores = zip(genres, best["test_per_genre"], strict=True)
    if missed := [genre for genre, score in scores if score == 0]:
        found.append(f"On test it finds no movie of these genres: {listed(missed)}.")
    return found


def interval(scores: Sequence[float]) -> str:
    """Mean ± half-width over the cycles; of one cycle the mean alone."""
    if len(scores) == 1:
        return f"{scores[0]:.3f}"
    from scipy.special import stdtrit  # here: importing it takes longer than writing a row

    reach = stdtrit(len(scores) - 1, 0.5 + LEVEL / 2) * stdev(scores) / sqrt(len(scores))
    return f"{fmean(scores):.3f} ± {reach:.3f}"


def synthetic(movies: Movies) -> bool:
    return movies.provenance["kind"] == "synthetic"


def source(movies: Movies) -> str:
    return "synthetic movies" if synthetic(movies) else name(str(movies.provenance["source"]))


def listed(genres: Sequence[str]) -> str:
    more = len(genres) - MOST_NAMES
    return ", ".join(genres[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
