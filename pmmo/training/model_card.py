"""README.md beside a run's models: what people, and hubs of models (its YAML), should know."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import yaml

from pmmo.config.settings import Settings
from pmmo.core.names import AVERAGES
from pmmo.core.text import markdown, name
from pmmo.data.movies import Movies
from pmmo.decisions.stored import Decision
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

{default}

## Limits

{limits}

## Use

In a clone of pmmo, with this folder as MODEL (`docs/own-data.md`):

```
python -m pmmo predict MODEL movies.hdf5
```

`model.safetensors` and `model.json` are enough for the best cycle's model at one threshold;
`decision.json` has the thresholds per genre and the temperature{ensemble}. In Python:

```python
from pmmo import load

model = load("MODEL")  # model.genres, model.predict(text, image)
```
"""


def model_card(
    settings: Settings,
    rows: Mapping[str, int],
    cycles: Sequence[Summary],
    best: Summary,
    movies: Movies,
    decision: Decision,
) -> str:
    """The card of a run's models; `rows` are the movies of each split."""
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
        default="\n".join(by_default(settings, decision)),
        limits="\n".join(f"- {limit}" for limit in limits(settings, best, genres, movies)),
        ensemble=", `model-*.safetensors` the other models" * (len(decision.cycles) > 1),
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


def by_default(settings: Settings, decision: Decision) -> list[str]:
    """What `predict` does, and how that scores on dev."""
    own = decision.fitted["running"]
    fitted, single = own[decision.predictor], own["single"]
    who = f"the mean of {len(decision.cycles)} cycles" if decision.ensemble else "this model"
    how = "a threshold per genre" if decision.thresholds else f"{settings.threshold:g}"
    score = fitted.f1_thresholds if decision.thresholds else fitted.f1
    shown = "calibrated" if decision.calibrated else "not calibrated"
    known = settings.train_on == "train+dev"
    chosen = "since dev, which it was trained on, chooses nothing" if known else "chosen on dev"
    fit = ", with\ncross-fitted thresholds). " if decision.thresholds else ").\n"
    found = [
        f"By default `predict` decides by {who} at {how}, {chosen} (weighted F1 {score:.3f}{fit}"
        f"Its probabilities are {shown} (NLL on dev {fitted.nll:.3f}, calibrated "
        f"{fitted.nll_calibrated:.3f}).",
    ]
    if "evaluation_set" in decision.fitted:
        evaluated = decision.fitted["evaluation_set"]["single"]
        found += [
            "",
            "It normalises by the statistics that training kept, so a movie's genres do not depend "
            "on its company.",
            "The scores in the table are by the statistics of all movies of the set together, as "
            "the run tests its models",
            f"(`--batch-norm evaluation_set`). On dev this model has a weighted F1 of "
            f"{evaluated.f1:.3f} so, and {single.f1:.3f} by default.",
        ]
    return found


def limits(settings: Settings, best: Summary, genres: Sequence[str], movies: Movies) -> list[str]:
    found = [
        "It takes vectors that were made as those it was trained on, not posters or texts.",
    ]
    if settings.train_on == "train+dev":
        found.append("It was trained on dev, too: its scores on dev are of movies that it knows.")
    if synthetic(movies):
        found.insert(0, "Its scores on synthetic movies say nothing about real ones.")
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
