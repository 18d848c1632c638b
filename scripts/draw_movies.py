"""Draw a few dozen movies to try `pmmo embed` with: plots of a few sentences, posters of shapes.

    python -m scripts.draw_movies FOLDER [--seed 0] [--weights]

FOLDER gets movies.csv (48 movies with genres), new-movies.csv (6 without), posters/, and words.vec,
toy word vectors in the text format of word2vec. With `--weights` it gets weights.safetensors too,
untrained weights for timm's `test_resnet`, which has half a million parameters (timm is needed).
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH = 16  # of the word vectors
SIZE = (96, 144)  # pixels of a poster


@dataclass(frozen=True)
class Genre:
    """What plots and posters of a genre are made of."""

    words: tuple[str, ...]
    colour: tuple[int, int, int]
    shape: str


GENRES = {
    "Comedy": Genre(
        ("wedding", "waiter", "dance", "neighbour", "mix-up"), (250, 200, 60), "circle"
    ),
    "Horror": Genre(("cellar", "scream", "shadow", "curse", "midnight"), (60, 20, 60), "triangle"),
    "War": Genre(("soldier", "trench", "retreat", "bombs", "orders"), (90, 100, 60), "square"),
    "Western": Genre(("sheriff", "saloon", "cattle", "duel", "desert"), (190, 110, 50), "line"),
}
COMMON = ("town", "brother", "letter", "night", "stranger", "road", "child", "winter")
SENTENCES = (
    "A {0} changes everything in the {2}.",
    "After the {0}, a {2} must face the {1}.",
    "Nobody in the {2} speaks of the {1} any more.",
    "One {2}, one {0}, and no way back from the {1}.",
)


def genres_of(rng: np.random.Generator) -> list[str]:
    """One genre, or with a chance of a quarter two."""
    return sorted(rng.choice(list(GENRES), 1 + int(rng.random() < 0.25), replace=False).tolist())


def plot(rng: np.random.Generator, genres: list[str]) -> str:
    sentences = []
    for sentence in rng.choice(SENTENCES, 3, replace=False):
        words = rng.choice(GENRES[rng.choice(genres)].words, 2, replace=False)
        sentences.append(sentence.format(*words, rng.choice(COMMON)))
    return " ".join(sentences)


def poster(rng: np.random.Generator, genres: list[str]) -> Image.Image:
    """Shapes of the genres on a background in the first one's colour."""
    tint = np.clip(np.array(GENRES[genres[0]].colour) + rng.integers(-25, 26, 3), 0, 255)
    image = Image.new("RGB", SIZE, tuple(tint.tolist()))
    pen = ImageDraw.Draw(image)
    for genre in genres * 4:
        x, y, size = (int(v) for v in (rng.integers(70), rng.integers(110), rng.integers(12, 40)))
        colour = tuple(rng.integers(120, 256, 3).tolist())
        match GENRES[genre].shape:
            case "circle":
                pen.ellipse((x, y, x + size, y + size), fill=colour)
            case "triangle":
                pen.polygon([(x, y + size), (x + size // 2, y), (x + size, y + size)], fill=colour)
            case "square":
                pen.rectangle((x, y, x + size, y + size), fill=colour)
            case "line":
                pen.line((x, y, x + 2 * size, y + size // 3), fill=colour, width=5)
    return image


def draw(folder: Path, name: str, count: int, rng: np.random.Generator, labelled: bool) -> None:
    """A table and its posters."""
    (folder / "posters").mkdir(parents=True, exist_ok=True)
    columns = ("id", *(["genres"] if labelled else []), "plot", "poster")
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for number in range(1, count + 1):
            genres = genres_of(rng)
            id = f"{'m' if labelled else 'n'}{number:02d}"
            path = f"posters/{id}.png"
            poster(rng, genres).save(folder / path)
            labels = ["|".join(genres)] if labelled else []
            writer.writerow((id, *labels, plot(rng, genres), path))


def draw_vectors(path: Path, rng: np.random.Generator) -> None:
    """Words of one genre lie around one point, common words around none."""
    lines = []
    for genre in GENRES.values():
        centre = rng.normal(0, 1, WIDTH)
        lines += [(word, centre + rng.normal(0, 0.6, WIDTH)) for word in genre.words]
    lines += [(word, rng.normal(0, 1, WIDTH)) for word in COMMON]
    numbers = [f"{word} {' '.join(f'{value:.4f}' for value in vector)}" for word, vector in lines]
    path.write_text("\n".join([f"{len(lines)} {WIDTH}", *numbers]) + "\n", encoding="utf-8")


def write_weights(path: Path, seed: int) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", action="store_true", help="for timm's test_resnet")
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    draw(given.folder, "movies.csv", 48, rng, labelled=True)
    draw(given.folder, "new-movies.csv", 6, rng, labelled=False)
    draw_vectors(given.folder / "words.vec", rng)
    if given.weights:
        write_weights(given.folder / "weights.safetensors", given.seed)
    print(f"{given.folder}: 48 movies, 6 new ones, and word vectors {WIDTH} wide")


if __name__ == "__main__":
    main()
