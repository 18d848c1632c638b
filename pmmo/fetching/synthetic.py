"""Synthetic movies from a seed: the layout and genre counts of MM-IMDb, with invented movies.

No row describes a real movie, and the file does not replace the published one. `docs/synthetic.md`
has its calibration and its uses. Widths and genres are the published ones at any N.

    labels   u ~ N(0, I_8), s = u Aᵀ + sqrt(1 - |A_k|²) ε; genre k goes to the rows with largest s_k
    text     0.03 ([y d_text + ε/√L, style] M + 0.072 ε/√L) + a fixed offset; L: length of the plot
    image    relu([1.5 (y d_image info/√0.65 + ε), style] B + 0.2 ε + b), dimensions scaled apart

Each random array depends on the seed only. The factors of a matrix product are rounded to binary
grids on which float32 represents every partial sum exactly. Therefore neither the number of threads
nor the BLAS library can change a byte.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pmmo.core.errors import PmmoError
from pmmo.core.writing import growing
from pmmo.hdf5.layout import COLUMNS
from pmmo.hdf5.writer import write_movies
from pmmo.published.mmimdb import GENRE_COUNTS, GENRES, IMAGE_WIDTH, ROWS, SPLITS, TEXT_WIDTH

SMALLEST = len(GENRES)  # rows; then each split has a row and each genre a movie
LARGEST = 1_000_000  # rows; ids are a 9 and six digits
NOTE = (
    "Synthetic stand-in, not MM-IMDb: invented movies with the published layout and genre counts. "
    "Scores on it say nothing about real movies."
)

# genre: strength in text and in image (the distance, in standard deviations, between movies with
# and without it; solved from the F1 of each modality alone in Arevalo et al., docs/synthetic.md);
# then its loadings on eight themes, the matrix A, written by hand. The rows of A are shorter than
# 1, and their dot products are the correlations of the scores s.
#                     text  image  heart  laugh  crime  fight  dread   fact wonder  stage
_GENRE_TABLE = {
    "Drama":       (0.89, 0.46,  0.50, -0.45,  0.10, -0.15, -0.10, -0.10, -0.30,  0.00),
    "Comedy":      (1.22, 0.98,  0.10,  0.75, -0.10, -0.15, -0.25, -0.20,  0.10,  0.05),
    "Romance":     (1.32, 0.89,  0.65,  0.30, -0.15, -0.15, -0.20, -0.20,  0.00,  0.15),
    "Thriller":    (1.44, 1.00, -0.10, -0.40,  0.50,  0.30,  0.40, -0.20, -0.15, -0.10),
    "Crime":       (1.77, 0.99,  0.00,  0.00,  0.80,  0.20, -0.10, -0.10, -0.15, -0.05),
    "Action":      (1.75, 1.22, -0.20,  0.00,  0.25,  0.75,  0.05, -0.15,  0.05, -0.10),
    "Adventure":   (1.76, 1.31, -0.05,  0.05, -0.15,  0.65,  0.00, -0.05,  0.45, -0.05),
    "Horror":      (2.16, 1.47, -0.25, -0.10, -0.10, -0.05,  0.80, -0.15,  0.00, -0.10),
    "Documentary": (2.41, 1.22, -0.60,  0.00, -0.10, -0.20, -0.15,  0.60,  0.00,  0.15),
    "Mystery":     (1.67, 1.10,  0.00, -0.15,  0.50, -0.05,  0.50, -0.10,  0.00, -0.05),
    "Sci-Fi":      (2.32, 1.45, -0.20,  0.00, -0.15,  0.30,  0.45, -0.10,  0.30, -0.05),
    "Fantasy":     (1.80, 1.38,  0.10,  0.10, -0.15,  0.20,  0.30, -0.15,  0.60,  0.00),
    "Family":      (2.08, 1.88,  0.00,  0.35, -0.20,  0.10, -0.15, -0.05,  0.70,  0.15),
    "Biography":   (2.00, 1.03,  0.30, -0.15,  0.00, -0.05, -0.20,  0.75, -0.10,  0.20),
    "War":         (2.43, 1.48,  0.20, -0.15, -0.15,  0.45, -0.10,  0.35, -0.10, -0.05),
    "History":     (2.00, 1.26,  0.30, -0.15, -0.10,  0.20, -0.10,  0.75, -0.05,  0.00),
    "Music":       (2.44, 1.06,  0.15,  0.15, -0.05, -0.15, -0.10,  0.25,  0.00,  0.75),
    "Animation":   (2.27, 2.62, -0.15,  0.20, -0.10,  0.20,  0.00, -0.15,  0.75,  0.05),
    "Musical":     (1.73, 1.73,  0.25,  0.30, -0.10, -0.10, -0.10, -0.05,  0.25,  0.70),
    "Western":     (2.76, 2.24,  0.00, -0.05, -0.05,  0.60, -0.20, -0.05, -0.25, -0.05),
    "Sport":       (3.22, 1.72,  0.10,  0.10, -0.05,  0.05, -0.15,  0.40,  0.05,  0.00),
    "Short":       (2.24, 2.22, -0.25,  0.15, -0.10, -0.15,  0.05,  0.00,  0.40,  0.10),
    "Film-Noir":   (1.77, 2.09,  0.20, -0.25,  0.65, -0.05,  0.10, -0.15, -0.10, -0.05),
}  # fmt: skip
_TABLE = np.array([_GENRE_TABLE[name] for name in GENRES])  # (G, 10)
TEXT_STRENGTH = _TABLE[:, 0]  # (G,)
IMAGE_STRENGTH = _TABLE[:, 1]  # (G,)
THEMES = _TABLE[:, 2:]  # (G, 8)

STYLE = np.geomspace(1.5, 0.3, 32)  # standard deviations of the dimensions of style
INFORMATIVE = 0.65  # share of posters that carry information about genres
BLOCK = 1_024  # rows of image noise in memory at once


@dataclass(frozen=True)
class SyntheticMovies:
    """Columns as stored: text (N, 300) and image (N, 4096) float32, genres (N, 23) int32, ids S7.

    `splits` maps train, dev and test to their first row and the row after their last.
    """

    text: np.ndarray
    image: np.ndarray
    genres: np.ndarray
    ids: np.ndarray
    genre_names: tuple[str, ...]
    splits: Mapping[str, tuple[int, int]]


def write_synthetic(path: Path, *, rows: int, seed: int) -> None:
    """Write `rows` synthetic movies in the published layout, reproducibly to the byte."""
    movies = synthetic_movies(rows, seed)
    columns = {column: getattr(movies, name) for column, name in COLUMNS.items()}
    with growing(path) as new:
        write_movies(
            new,
            **vars(movies),
            provenance={
                "kind": "synthetic",
                "source": f"synthetic movies of pmmo, {rows} rows, seed {seed}",
                "rows": rows,
                "seed": seed,
                "sha256": {name: hashlib.sha256(c.data).hexdigest() for name, c in columns.items()},
                "pinned": False,
                "note": NOTE,
            },
        )


def synthetic_movies(rows: int, seed: int) -> SyntheticMovies:
    """The movies of `write_synthetic`. PmmoError if `rows` or `seed` is out of range."""
    if not SMALLEST <= rows <= LARGEST:
        raise PmmoError(
            f"synthetic data: {rows} rows asked for; the smallest number is {SMALLEST} (one for "
            f"each genre) and the largest {LARGEST}. The published file has {ROWS}."
        )
    if seed < 0:
        raise PmmoError(f"synthetic data: seed is {seed}; give a whole number from 0 up.")
    for_labels, for_text, for_image = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(3)
    )
    genres = _genres(rows, for_labels)
    return SyntheticMovies(
        text=_text(genres, for_text),
        image=_image(genres, for_image),
        genres=genres,
        ids=np.array([b"9%06d" % row for row in range(rows)], dtype="S7"),
        genre_names=GENRES,
        splits=_splits(rows),
    )


def _splits(rows: int) -> dict[str, tuple[int, int]]:
    """The published split bounds, scaled to `rows`."""
    return {
        name: (round(start * rows / ROWS), round(stop * rows / ROWS))
        for name, (start, stop) in SPLITS.items()
    }


def genre_targets(rows: int) -> np.ndarray:
    """The number of movies per genre (G,) out of `rows`: the published share, at least one."""
    counts = np.array(list(GENRE_COUNTS.values()))
    return np.maximum(1, np.rint(counts * rows / ROWS).astype(int))


def _genres(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (rows, G) int32 with exactly the target counts and no row without a label."""
    u = _on_grid(rng.standard_normal((rows, THEMES.shape[1])), 10)  # (N, 8)
    own = np.sqrt(1 - np.square(THEMES).sum(axis=1))  # (G,): scores have variance 1
    s = u @ _on_grid(THEMES, 8).T + own * rng.standard_normal((rows, len(GENRES)))  # (N, G)

    order = np.argsort(-s, axis=0, kind="stable")  # (N, G) rows, most typical first
    targets = genre_targets(rows)
    genres = np.zeros((rows, len(GENRES)), np.int32)
    for k, target in enumerate(targets):
        genres[order[:target, k], k] = 1
    margin = s - s[order[targets - 1, np.arange(len(GENRES))], np.arange(len(GENRES))]  # (N, G)
    _label_every_row(genres, margin, order, targets)
    return genres


def _label_every_row(
    genres: np.ndarray, margin: np.ndarray, order: np.ndarray, targets: np.ndarray
) -> None:
    """Give each unlabelled row the genre it missed by the smallest margin; keep every count.

    The genre is taken from its least typical movie that has another genre. As there are more labels
    than movies, such a movie exists for some genre as long as a row has no label.
    """
    labels = genres.sum(axis=1)  # (N,)
    last = targets - 1  # (G,) place in `order` of the next movie that could give up the genre
    for row in np.flatnonzero(labels == 0):
        for k in np.argsort(-margin[row], kind="stable"):
            while last[k] >= 0 and labels[order[last[k], k]] < 2:
                last[k] -= 1
            if last[k] >= 0:
                giver = order[last[k], k]
                genres[giver, k], genres[row, k] = 0, 1
                labels[giver] -= 1
                labels[row] = 1
                last[k] -= 1
                break


def _text(genres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Plot vectors (N, 300) float32 of genres and style; shorter plots have more noise."""
    loadings = _loadings(rng, TEXT_WIDTH, variance=1 / TEXT_WIDTH)  # (55, 300)
    offset = 0.02 * rng.standard_normal(TEXT_WIDTH, dtype=np.float32)  # (300,)
    rows = len(genres)
    # 1/√L, where the length L of a plot is log-normal about 1
    blur = _on_grid(np.exp(-0.5 * 0.45 * rng.standard_normal((rows, 1))), 10)  # (N, 1)
    plot = np.hstack(
        [
            genres * TEXT_STRENGTH + blur * rng.standard_normal(genres.shape),  # (N, G)
            STYLE * rng.standard_normal((rows, len(STYLE))),  # (N, 32)
        ]
    )
    text = _on_grid(plot, 6) @ loadings  # (N, 300)
    noise = rng.standard_normal(text.shape, dtype=np.float32)
    text += np.float32(0.072) * blur * noise
    text *= np.float32(0.03)  # the published vectors are means, so their norms are small
    text += offset
    return text


def _image(genres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poster features (N, 4096) float32, rectified: about four in five are zero."""
    loadings = _loadings(rng, IMAGE_WIDTH, variance=1 / (len(GENRES) + len(STYLE)))  # (55, 4096)
    bias = -1.1 + 0.5 * rng.standard_normal(IMAGE_WIDTH)
    bias = bias.astype(np.float32)  # (4096,)
    gain = _on_grid(np.exp(0.4 * rng.standard_normal(IMAGE_WIDTH)), 10)  # (4096,)
    rows = len(genres)
    informative = rng.random((rows, 1)) < INFORMATIVE  # (N, 1)
    shown = genres * IMAGE_STRENGTH * informative / np.sqrt(INFORMATIVE)  # (N, G)
    style = STYLE * rng.standard_normal((rows, len(STYLE)))  # (N, 32)
    style[:, :1] = 1.5 * np.where(informative, 1, -1)  # encodes whether the poster is informative
    poster = np.hstack([1.5 * (shown + rng.standard_normal(genres.shape)), style])  # (N, 55)
    poster = _on_grid(poster, 6)

    image = np.empty((rows, IMAGE_WIDTH), np.float32)
    for start in range(0, rows, BLOCK):
        block = image[start : start + BLOCK]
        np.matmul(poster[start : start + BLOCK], loadings, out=block)
        noise = rng.standard_normal(block.shape, dtype=np.float32)
        noise *= np.float32(0.2)
        block += noise
        block += bias
        np.maximum(block, 0, out=block)
        block *= gain
    return image


def _loadings(rng: np.random.Generator, width: int, variance: float) -> np.ndarray:
    """Loadings of genres and style on each feature (G + 32, width), on a grid."""
    shape = (len(GENRES) + len(STYLE), width)
    return _on_grid(np.sqrt(variance) * rng.standard_normal(shape), 8)


def _on_grid(values: np.ndarray, bits: int) -> np.ndarray:
    """Round to multiples of 2**-bits, as float32.

    Products of 6- and 8-bit grids are multiples of 2**-14. float32 adds them up without rounding,
    in any order, while sums stay below 2**10; for 10- and 8-bit grids, while they are below 2**6.
    """
    return np.ldexp(np.rint(np.ldexp(values, bits)), -bits).astype(np.float32)
