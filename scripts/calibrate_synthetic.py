"""Compare the synthetic movies with the known facts about the real ones; prints Markdown.

    OMP_NUM_THREADS=1 python -m scripts.calibrate_synthetic > measured.md

The systems below are simple and independent of the project's systems, so a fault in those does not
affect them. `--compare FILE` also compares label co-occurrence with real movies in the same layout.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from scipy.stats import norm, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pmmo.analysis.metrics import f1_per_genre, f1_scores
from pmmo.benchmark.plain import Maxout
from pmmo.benchmark.tables import grid
from pmmo.fetching.synthetic import IMAGE_STRENGTH, TEXT_STRENGTH
from pmmo.published.mmimdb import GENRE_COUNTS, GENRES, ROWS
from pmmo.published.paper import AREVALO

PRINTED = {  # systems of `score_systems` that Arevalo et al. have, too
    "logistic, text": "logistic-text",
    "maxout MLP, text": "mlp-text",
    "maxout MLP, image": "mlp-image",
    "GMU": "gmu",
}

LIFT_PAIRS = (
    ("Drama", "Romance"),
    ("Comedy", "Romance"),
    ("Crime", "Thriller"),
    ("Action", "Adventure"),
    ("Animation", "Family"),
    ("Biography", "History"),
    ("Music", "Musical"),
    ("Crime", "Film-Noir"),
    ("Drama", "Documentary"),
    ("Comedy", "Thriller"),
    ("Horror", "Romance"),
)
GENERATE = (
    "import sys; from pathlib import Path; from pmmo.fetching.synthetic import write_synthetic;"
    "write_synthetic(Path(sys.argv[1]), rows=int(sys.argv[2]), seed=int(sys.argv[3]))"
)


class Movies(NamedTuple):
    """Columns of one file; `train`, `dev`, `test` are slices of its rows."""

    text: np.ndarray  # (N, T)
    image: np.ndarray  # (N, I)
    genres: np.ndarray  # (N, G)
    train: slice
    dev: slice
    test: slice


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the synthetic movies; prints Markdown.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=18, help="of each neural system")
    parser.add_argument("--compare", type=Path, help="real movies in the published layout")
    args = parser.parse_args()
    if args.compare is not None and not args.compare.is_file():
        parser.error(f"--compare: there is no file {args.compare}")

    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movies.hdf5"
        print(f"Rows {args.rows}, seed {args.seed}, {torch.get_num_threads()} thread(s); ", end="")
        print(generation_cost(path, args.rows, args.seed))
        movies = read(path)
    print(f"\n{features_table(movies)}\n\n{labels_table(movies.genres)}")
    if args.compare is not None:
        print("\n" + comparison(movies.genres, args.compare))

    scores, per_genre = score_systems(movies, args.epochs)
    print(f"\n{scores}\n\n{per_genre}")


def generation_cost(path: Path, rows: int, seed: int) -> str:
    """Write the file in a separate process; its total seconds and peak memory, as Markdown."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", GENERATE, str(path), str(rows), str(seed)], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # Linux: KiB
    size = path.stat().st_size / 2**20
    return f"written ({size:.0f} MiB) in {seconds:.1f} s at a peak of {peak:.0f} MiB."


def read(path: Path) -> Movies:
    with h5py.File(path) as file:
        rows = {
            row["split"].decode(): slice(row["start"], row["stop"])
            for row in file.attrs["split"]
            if row["source"] == b"genres"
        }
        text, image, genres = (file[name][:] for name in ("features", "vgg_features", "genres"))
    return Movies(text, image, genres, **rows)


def features_table(movies: Movies) -> str:
    def row(name: str, values: np.ndarray, zeros: str) -> tuple[str, ...]:
        norms = np.linalg.norm(values, axis=1)
        norm = f"{norms.mean():.2f} ± {norms.std():.2f}"
        moments = f"{values.mean():.4f}", f"{values.std():.4f}", f"{values.max():.2f}"
        return (name, norm, *moments, f"{(values == 0).mean():.1%}", zeros)

    head = ("", "norm of a row", "mean", "sd", "maximum", "zeros", "zeros wanted")
    return grid(head, [row("text", movies.text, "none"), row("image", movies.image, "80 %")], 1)


def labels_table(genres: np.ndarray) -> str:
    """Labels per movie, and lift: the frequency of a pair relative to independent genres."""
    labels = genres.sum(axis=1)
    published = sum(GENRE_COUNTS.values()) / ROWS
    spread = ", ".join(
        f"{n}: {share:.1%}" for n, share in enumerate(np.bincount(labels) / len(labels))
    )
    lifts = lift(genres)
    rows = [(f"{a}, {b}", f"{lifts[GENRES.index(a), GENRES.index(b)]:.2f}") for a, b in LIFT_PAIRS]
    return (
        f"Labels per movie: {labels.mean():.4f} (published {published:.4f}); shares {spread}.\n\n"
        + grid(("pair", "lift"), rows, 1)
    )


def lift(genres: np.ndarray) -> np.ndarray:
    """P(j, k) / (P(j) P(k)) of each pair of genres (G, G)."""
    shares = genres.mean(axis=0)
    together: np.ndarray = genres.T @ genres / len(genres)
    return together / np.outer(shares, shares)


def comparison(genres: np.ndarray, path: Path) -> str:
    """Rank correlation of the lifts over all pairs of genres that both files have."""
    with h5py.File(path) as file:
        names = json.loads(file["genres"].attrs["target_names"])
        real = file["genres"][:]
    shared = [name for name in names if name in GENRES]
    ours = lift(genres[:, [GENRES.index(name) for name in shared]])
    theirs = lift(real[:, [names.index(name) for name in shared]])
    pairs = np.triu_indices(len(shared), k=1)
    correlation = spearmanr(ours[pairs], theirs[pairs]).statistic
    return (
        f"Rank correlation of lifts with {len(real)} real movies, {len(shared)} genres, "
        f"{len(pairs[0])} pairs: {correlation:.2f}."
    )


def maxout_mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        Maxout(inputs, hidden, pieces=2),
        nn.Dropout(dropout),
        nn.BatchNorm1d(hidden),
        Maxout(hidden, hidden, pieces=2),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


class Gmu(nn.Module):
    """Gated multimodal unit, then one maxout layer."""

    def __init__(self, text: int, image: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.text, self.image = nn.Linear(text, hidden), nn.Linear(image, hidden)
        self.gate = nn.Linear(text + image, hidden)
        self.classify = nn.Sequential(
            nn.BatchNorm1d(hidden),
            Maxout(hidden, hidden, pieces=2),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(torch.cat((text, image), dim=-1)))  # (B, H)
        h = gate * torch.tanh(self.image(image)) + (1 - gate) * torch.tanh(self.text(text))
        return self.classify(h)  # (B, G)


def score_systems(movies: Movies, epochs: int) -> tuple[str, str]:
    """Markdown tables: weighted F1 of each system, and F1 of each genre, on the test rows."""
    text, image = (
        StandardScaler().fit(x[movies.train]).transform(x) for x in (movies.text, movies.image)
    )
    truth = movies.genres[movies.test]
    T, I, G = text.shape[1], image.shape[1], truth.shape[1]
    at_best: dict[str, np.ndarray] = {"logistic, text": _logistic(text, movies)}
    rows = []

    def train(name: str, model: nn.Module, inputs: Sequence[np.ndarray], max_norm: float) -> None:
        best, epoch, last = _fit(model, inputs, movies, epochs, max_norm)
        at_best[name] = best
        rows.append((name, epoch, f1_scores(truth, last)["weighted"]))

    train("maxout MLP, text", maxout_mlp(T, 256, G, 0.5), [text], 5.0)
    train("maxout MLP, image", maxout_mlp(I, 256, G, 0.5), [image], 5.0)
    train("GMU", Gmu(T, I, 512, G, 0.7), [text, image], 5.0)
    train("GMU, unregularised", Gmu(T, I, 512, G, 0.0), [text, image], float("inf"))

    epoch_of = {name: (f"{epoch}", f"{last:.3f}") for name, epoch, last in rows}
    scores = []
    for name, predicted in at_best.items():
        f1 = f1_scores(truth, predicted)
        known = f"{AREVALO[PRINTED[name]].weighted:.3f}" if name in PRINTED else "–"
        epoch, last = epoch_of.get(name, ("–", "–"))
        scores.append((name, f"{f1['weighted']:.3f}", known, f"{f1['macro']:.3f}", epoch, last))
    head = ("test F1 at 0.5", "weighted", "Arevalo et al.", "macro", "epoch")
    table = grid((*head, f"weighted after {epochs}"), scores, 1)
    return table, _genres_table(movies.genres, truth, at_best)


def _genres_table(genres: np.ndarray, truth: np.ndarray, predictions: dict[str, np.ndarray]) -> str:
    columns = [
        GENRES,
        genres.sum(axis=0).tolist(),
        [f"{count * len(genres) / ROWS:.0f}" for count in GENRE_COUNTS.values()],
        *(
            [f"{f:.2f}" for f in f1]
            for f1 in (literature_f1(TEXT_STRENGTH, 0.97), literature_f1(IMAGE_STRENGTH, 0.92))
        ),
        *([f"{f:.2f}" for f in f1_per_genre(truth, p)] for p in predictions.values()),
    ]
    header = ["genre", "movies", "published share", "text, literature", "image, literature"]
    return grid([*header, *predictions], list(zip(*columns, strict=True)), 1)


def literature_f1(strength: np.ndarray, alpha: float) -> np.ndarray:
    """The F1 (G,) in Arevalo et al. that the strengths (G,) were solved from (docs/synthetic.md).

    A genre is modelled by two unit normals with its published share as prior, cut at
    probability 0.5.
    """
    share = np.array(list(GENRE_COUNTS.values())) / ROWS
    distance = strength / (alpha * (share / 0.1) ** -0.12)
    cut = distance / 2 - np.log(share / (1 - share)) / distance
    hits, false = norm.cdf(distance - cut), norm.cdf(-cut)
    return 2 * share * hits / (share + share * hits + (1 - share) * false)


def _logistic(text: np.ndarray, movies: Movies) -> np.ndarray:
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():  # at small N a genre may have no training movie
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        model.fit(text[movies.train], movies.genres[movies.train])
    return model.predict(text[movies.test])  # (N_test, G)


def _fit(
    model: nn.Module, inputs: Sequence[np.ndarray], movies: Movies, epochs: int, max_norm: float
) -> tuple[np.ndarray, int, np.ndarray]:
    """Test predictions (N_test, G) of the best dev epoch, that epoch, and the last epoch's."""
    xs = [torch.from_numpy(x) for x in inputs]
    y = torch.from_numpy(movies.genres).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    best, best_epoch, best_f1 = np.empty(0), 0, -1.0
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in torch.randperm(movies.train.stop).split(512):
            loss = nn.functional.binary_cross_entropy_with_logits(
                model(*(x[batch] for x in xs)), y[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if max_norm < float("inf"):
                with torch.no_grad():
                    for weight in weights:
                        weight.copy_(torch.renorm(weight, 2, 0, max_norm))
        dev, test = (_predict(model, xs, rows) for rows in (movies.dev, movies.test))
        f1 = f1_scores(movies.genres[movies.dev], dev)["weighted"]
        if f1 > best_f1:
            best, best_epoch, best_f1 = test, epoch, f1
    return best, best_epoch, test


@torch.no_grad()
def _predict(model: nn.Module, xs: Sequence[Tensor], rows: slice) -> np.ndarray:
    model.eval()
    return (model(*(x[rows] for x in xs)) > 0).int().numpy()


if __name__ == "__main__":
    main()
