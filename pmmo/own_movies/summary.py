"""What `import` says of the file that it wrote."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pmmo.core.text import printable
from pmmo.own_movies.catalogue import Catalogue, Plan
from pmmo.own_movies.embeddings import Embedding
from pmmo.own_movies.genre_cells import count_genres

PLAIN = re.compile(r"[A-Za-z_./][\w./-]*", re.ASCII)  # what -S takes without quotes of its own
MOST = 50  # names on a line


def describe(
    output: Path,
    catalogue: Catalogue,
    plan: Plan,
    vectors: Mapping[str, Embedding],
    without_text: int,
) -> str:
    widths = f"text {vectors['features'].width:,}, image {vectors['vgg_features'].width:,} wide"
    bounds = ", ".join(f"{name} {stop - start:,}" for name, (start, stop) in plan.splits.items())
    movies = f"{len(catalogue.ids):,} movies ({bounds or 'unlabelled'}); {widths}"
    lines = [f"{printable(str(output))}: {movies}"]
    if plan.splits:
        lines += of_genres(catalogue, plan)
        lines.append(
            f"Train on it with `dvc exp run -f -S {source(output)} experiment`: without -f, DVC "
            "does not see that a file of a name it knows has other movies."
        )
    if without_text:
        lines.append(f"without text: {without_text:,} (data.nan_text says what becomes of them)")
    return "\n".join(lines)


def of_genres(catalogue: Catalogue, plan: Plan) -> Iterator[str]:
    counts = count_genres(catalogue.genres)
    names = [f"{name} {counts[name]:,}" for name in plan.genre_names]
    yield f"{len(names):,} genres: {first_of(names)}"
    start, stop = plan.splits["train"]
    in_train = (start <= plan.place) & (plan.place < stop)
    known = count_genres(catalogue.genres[row] for row in in_train.nonzero()[0])
    if unseen := [name for name in plan.genre_names if name not in known]:
        yield f"no movie of train has: {first_of(unseen)} (cannot be learned)"
    if blank := sum(not names for names in catalogue.genres):
        yield f"without a genre: {blank:,}"
    if catalogue.no_value:
        words = [f"{word} {times:,}" for word, times in catalogue.no_value.items()]
        yield f"taken as no genre: {first_of(words)}"


def first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST:,} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def source(path: Path) -> str:
    """The path for `-S`, in quotes for DVC and for the shell where it needs them."""
    text = str(path)
    if not PLAIN.fullmatch(text):
        before_quotes = re.sub(r'(\\*)(?="|$)', r"\1\1", text)  # the only backslashes that count
        text = '"' + before_quotes.replace('"', '\\"') + '"'
    return shlex.quote(f"data.source={printable(text)}")
