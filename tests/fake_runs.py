"""Write runs/ and data/tensors/ in the pipeline's format, with simulated predictions.

The columns of text and image are the labels under noise: a reference for rows that did not train.
Every cycle of every row shares the movies' difficulty and adds its own noise, so that both
sources of chance (movies and cycles) are present and the true ordering of the rows is known.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file

from pmmo.analysis.run_reader import Movies, Run, read_movies, read_runs
from pmmo.core.names import CURVES
from pmmo.decisions.stored import DECISION, write_decision
from pmmo.published.mmimdb import GENRE_COUNTS
from pmmo.published.paper import ROWS
from pmmo.training.decision import decide_on_dev
from pmmo.training.evaluation import genre_scores
from pmmo.training.evaluation import scores as scores_of

OTHER_ROWS = {
    "gmu-unregularised": "GMU without regularisation",
    "gmu-wide": "GMU (3000)",
    "pmmo-literal": "PM+MO, the text taken literally",
    "pmmo-released": "PM+MO, the released code",
    "mlp-text": "Text only",
    "mlp-image": "Image only",
    "mlp-both": "Text and image side by side",
}
ON_DEV = [  # as a row above, trained on train and dev
    ("gmu-train-dev", "GMU, train and dev"),
    ("mmo-train-dev", "M+MO, train and dev"),
    ("pmmo-train-dev", "PM+MO, train and dev"),
]
SIBLING = {"gmu-train-dev": "gmu", "mmo-train-dev": "mmo", "pmmo-train-dev": "pmmo-kl-l2"}
VARIANTS = [(name, row.label) for name, row in ROWS.items()] + list(OTHER_ROWS.items())
SKILL = {"gmu-unregularised": 0.8, "pmmo-literal": 0.3, "mmo": 0.98, "pmmo-v1": 0.97} | {
    "mlp-text": 0.8,
    "mlp-image": 0.6,
}
SECONDS = {"gmu": 1.1, "gmu-unregularised": 1.0, "gmu-wide": 3.0, "mmo": 4.0}
WIDTHS = {"text": 24, "image": 16}
COLUMN_NOISE = 0.9


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def simulate(rng, truth, rate, skill, cycle_noise, movie_noise):
    """Probabilities (N, G): the movies' shared noise plus one cycle's bias and noise."""
    bias = rng.normal(0, cycle_noise, truth.shape[1])
    own = rng.normal(0, 0.5, truth.shape)
    evidence = 3.2 * skill * (truth - 0.5) + movie_noise + own + bias
    return sigmoid(evidence + np.log(rate / (1 - rate)) + 0.4).astype(np.float32)


def write_tensors(folder: Path, movies: int, genres: dict[str, int], rng) -> dict:
    rate = np.array(list(genres.values())) / 25_959
    labels = (rng.random((movies, len(genres))) < rate).astype(np.uint8)
    labels[labels.sum(axis=1) == 0, 0] = 1
    bounds = [0, int(0.6 * movies), int(0.7 * movies), movies]
    splits = {name: bounds[i : i + 2] for i, name in enumerate(("train", "dev", "test"))}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"genres": labels}, folder / "genres.safetensors")
    columns = np.random.default_rng(1)
    for name, width in WIDTHS.items():
        values = labels @ columns.normal(0, 1, (len(genres), width))
        values += COLUMN_NOISE * columns.normal(0, 1, values.shape)
        save_file({name: values.astype(np.float32)}, folder / f"{name}.safetensors")
    facts = {
        "ids": [f"{i:07d}" for i in range(movies)],
        "genres": list(genres),
        "splits": splits,
        "provenance": {
            "kind": "synthetic",
            "source": "simulated predictions of the tests",
            "rows": movies,
            "sha256": {name: "0" * 64 for name in ("features", "genres", "vgg_features")},
            "pinned": False,
            "note": "no data behind it",
        },
        "nan_text": {"policy": "zeros", "count": 0, "ids": []},
        "unlabelled": 0,
    }
    (folder / "movies.json").write_text(json.dumps(facts))
    return {name: labels[slice(*bounds)] for name, bounds in splits.items()}


def settings_of(name: str, label: str, cycles: int, epochs: int) -> dict:
    row, name = name, SIBLING.get(name, name)
    system = "pmmo" if name.startswith("pmmo") else name.split("-")[0]
    return {
        "name": row,
        "label": label,
        "system": "released" if name == "pmmo-released" else system,
        "elbo": name.split("-")[1] if system == "pmmo" and "-" in name else None,
        "penalty": "l2" if "l2" in name else "l1" if "l1" in name else None,
        "inputs": name.removeprefix("mlp-") if system == "mlp" else None,
        "width": 64,
        "epochs": epochs,
        "batch_size": 128,
        "threshold": 0.5,
        "batch_norm": True,
        "batch_norm_eval": "evaluation_set",
        "train_on": "train+dev" if row in SIBLING else "train",
        "epoch_predictions": row in SIBLING or row in SIBLING.values(),
        "dropout": 0.5,
        "cycles": cycles,
        "seed": 0,
    }


def curve(rng, cycle: int, epochs: int, best: int, peak: float, gap: float, bayes: bool):
    epoch = np.arange(1, epochs + 1)
    shape = 1 - np.exp(-2.5 * epoch / best) - 0.004 * np.clip(epoch - best, 0, None)
    dev = peak * np.minimum(shape / shape[best - 1], 0.999) + rng.normal(0, 0.002, epochs)
    dev[best - 1] = max(peak, dev.max() + 1e-4)
    loss = 4 * np.exp(-epoch / 8) + 2
    table = pd.DataFrame({"cycle": cycle, "epoch": epoch})
    for column in CURVES:
        table[column] = np.nan
    for average, shift in (("micro", 0.01), ("macro", -0.08), ("weighted", 0), ("samples", 0.01)):
        table[f"dev_{average}"] = dev + shift
    table["train_weighted"] = dev + gap * epoch / best
    table["loss"] = table["loss_c"] = loss
    if bayes:
        table["loss_a"], table["log_likelihood"] = loss + 1, -loss
        table["kl"], table["kl_factor"] = 50 * np.exp(-epoch / 10), np.linspace(0.2, 1, epochs)
        table["penalty"] = 0.01
    return table


def aside(test: np.ndarray, epochs: int, best: int) -> dict[str, np.ndarray]:
    """What chooses nothing: each epoch of a cycle whose epoch `best` has the predictions `test`."""
    rng = np.random.default_rng(len(test))
    logits, noise = np.log(test / (1 - test)), rng.normal(0, 0.7, (epochs + 1, *test.shape))
    noise[best - 1] = 0
    found = sigmoid(logits + noise).astype(np.float32)
    found[best - 1] = test
    return {"test_epochs": found[:-1], "test_other_statistics": found[-1]}


def write_run(folder: Path, name: str, label: str, truth: dict, genres, cycles, epochs, shared):
    """One row: `shared` is the movies' noise, the same for all rows and cycles."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(name, label, cycles, epochs)
    bayes = settings["system"] == "pmmo"
    rate = np.array(list(genres.values())) / 25_959
    skill = SKILL.get(name, 1.0)
    best = 4 if name == "gmu-unregularised" else max(5, epochs - 6)
    summary, curves, trained = [], [], []
    for cycle in range(cycles):
        rng = np.random.default_rng([sum(map(ord, name)), cycle])
        scores, arrays = {}, {}
        for split in ("dev", "test"):
            y = truth[split]
            p = simulate(rng, y, rate, skill, 0.1, shared[split])
            arrays[split] = p
            if bayes:
                arrays[f"{split}_samples"] = (0.9 * p + 0.1 * rate).astype(np.float32)
            against = torch.from_numpy(p), torch.from_numpy(y), settings["threshold"]
            scores[split] = scores_of(*against)
            scores[f"{split}_per_genre"] = genre_scores(*against)
        for column, kept in (("text", 0.5), ("image", 0.8)):
            arrays[f"test_{column}_mean"] = simulate(
                rng, truth["test"], rate, kept * skill, 0.1, shared["test"]
            )
        if settings["system"] != "mlp":
            arrays["test_gate"] = sigmoid(
                rng.normal(-0.4, 0.3, len(truth["test"])) + 0.5 * truth["test"][:, -1]
            ).astype(np.float32)
        save_file(arrays, folder / f"predictions-{cycle}.safetensors")
        if settings["epoch_predictions"]:
            save_file(
                aside(arrays["test"], epochs, best), folder / f"protocols-{cycle}.safetensors"
            )
        dev = {"dev": torch.from_numpy(arrays["dev"])}
        trained.append(SimpleNamespace(summary={"cycle": cycle}, predictions=dev))
        summary.append({"cycle": cycle, "seed": cycle, "best_epoch": best, **scores})
        gap = 0.3 if name == "gmu-unregularised" else 0.05
        curves.append(curve(rng, cycle, epochs, best, scores["dev"]["weighted"], gap, bayes))
    known = {key: settings[key] for key in ("threshold", "train_on")}
    plain = SimpleNamespace(batch_norm=False, **known)
    write_decision(folder / DECISION, decide_on_dev(plain, trained, trained[0], truth["dev"]))
    pd.concat(curves).to_csv(folder / "curves.csv", index=False)
    seconds = SECONDS.get(name, 5.25)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "summary.json").write_text(
        json.dumps(
            {
                "name": name,
                "label": label,
                "rows": {split: len(y) for split, y in truth.items()}
                | ({"train": len(truth["train"]) + len(truth["dev"])} if name in SIBLING else {}),
                "random_weights": 100_000 if bayes else 0,
                "parameters": 250_000 if bayes else 150_000,
                "cycles": summary,
            }
        )
    )
    (folder / "environment.json").write_text(
        json.dumps(
            {
                "device": "cpu",
                "cpu": "simulated CPU",
                "gpu": None,
                "cores": 2,
                "threads": 1,
                "workers": 1,
                "python": "3.11.9",
                "torch": "2.13.0",
                "pyro": "1.9.2",
                "cuda": None,
                "precision": "highest",
                "platform": "Linux",
                "seconds_per_epoch": [seconds * (1 + 0.02 * c) for c in range(cycles)],
                "seconds_total": seconds * epochs * cycles,
            }
        )
    )


def write_all(root: Path, movies=2600, cycles=5, epochs=12, variants=None, genres=None) -> None:
    """root/runs/<variant>/ and root/data/tensors/ of simulated rows."""
    genres = genres or GENRE_COUNTS
    rng = np.random.default_rng(7)
    truth = write_tensors(root / "data" / "tensors", movies, genres, rng)
    shared = {split: rng.normal(0, 1.0, y.shape) for split, y in truth.items()}
    for name, label in variants or VARIANTS:
        write_run(root / "runs/rows" / name, name, label, truth, genres, cycles, epochs, shared)


def read(root: Path, variants=None) -> tuple[dict[str, Run], Movies]:
    """The runs and movies that `write_all` wrote."""
    runs = read_runs(root / "runs/rows", variants or VARIANTS)
    return runs, read_movies(root / "data/tensors")


def write_settings(root: Path, rows, draws: int = 100) -> None:
    """What `aggregate` and `comparison` read of params.yaml; `rows` are (name, label)."""
    settings = {
        "rows": dict(rows),
        "intervals": {"level": 0.95, "draws": draws, "seed": 0},
        "guard": {"margin": 0.03},
        "verdicts": {"equivalent": 0.005, "rise": 0.01, "power": 0.8},
    }
    (root / "settings").mkdir(exist_ok=True)
    (root / "settings/reports.json").write_text(json.dumps(settings))
