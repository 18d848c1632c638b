"""Word vectors in the format of word2vec, text or binary, of the words that are asked for alone.

Own reading, though gensim reads the format too: the published vectors (three million words) take
3.6 GB in memory, those of the words of all plots some hundred times less, and the files are read
without a further package.
"""

import gzip
import io
import zlib
from collections.abc import Iterator, Set
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from pmmo.core.errors import PmmoError

WIDEST = 100_000
LONGEST = 4096  # bytes of a word
BLOCK = 1 << 22


def read_word2vec(path: Path, words: Set[str]) -> tuple[dict[str, np.ndarray], int]:
    """{word: vector (W,) float32} of those `words` that the file has, and W; PmmoError if damaged.

    A file that ends with .gz is unpacked. Of a word that is there twice, the first counts.
    """
    wanted = {word.encode(): word for word in words}
    found: dict[str, np.ndarray] = {}
    try:
        with unpacked(path) as file:
            count, width = header(file.readline(100))
            reader = text_vectors if is_text(file, width) else binary_vectors
            for word, vector in reader(file, count, width, wanted.keys()):
                found.setdefault(wanted[word], vector)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PmmoError(
            f"{path}: cannot be read as word vectors of word2vec ({reason}). Give a file that "
            "begins with the number of words and their width, in text or binary."
        ) from None
    for text, vector in found.items():
        if not np.isfinite(vector).all():
            raise PmmoError(f"{path}: the vector of {text!r} is not finite. Get the file again.")
    return found, width


def unpacked(path: Path) -> io.BufferedReader:
    kind = gzip.open if path.suffix == ".gz" else open
    return io.BufferedReader(cast(io.RawIOBase, kind(path, "rb")), BLOCK)


def header(line: bytes) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 12 for part in parts):
        raise ValueError(f"its first line is {line[:60]!r}")
    count, width = map(int, parts)
    if not 0 < width <= WIDEST or count == 0:
        raise ValueError(f"{count} words of width {width}")
    return count, width


def is_text(file: io.BufferedReader, width: int) -> bool:
    """Whether what follows is a line with a word and `width` numbers."""
    line = file.peek(BLOCK)[: LONGEST + 40 * width].split(b"\n", 1)[0]
    try:
        return len([float(number) for number in line.split()[1:]]) == width
    except ValueError:
        return False


def text_vectors(
    file: BinaryIO, count: int, width: int, wanted: Set[bytes]
) -> Iterator[tuple[bytes, np.ndarray]]:
    for number in range(1, count + 1):
        line = file.readline(LONGEST + 40 * width).rstrip(b"\r\n ")
        if not line:
            raise ValueError(f"it ends after {number - 1:,} of {count:,} words")
        word, *numbers = line.split(b" ")
        if word in wanted:
            if len(numbers) != width:
                raise ValueError(f"word {number:,} has {len(numbers)} numbers, expected {width}")
            try:
                yield word, np.array(numbers, "S").astype("<f4")
            except ValueError:
                raise ValueError(f"word {number:,} has something else than numbers") from None


def binary_vectors(
    file: BinaryIO, count: int, width: int, wanted: Set[bytes]
) -> Iterator[tuple[bytes, np.ndarray]]:
    size, data, start = 4 * width, b"", 0
    for number in range(1, count + 1):
        while (space := data.find(b" ", start)) < 0 or len(data) <= space + size:
            if space < 0 and len(data) - start > LONGEST:
                raise ValueError(f"word {number:,} does not end")
            more = file.read(BLOCK)
            if not more:
                raise ValueError(f"it ends after {number - 1:,} of {count:,} words")
            data, start = data[start:] + more, 0
        word = data[start:space].lstrip(b"\n")
        if word in wanted:
            yield word, np.frombuffer(data, "<f4", width, space + 1).copy()
        start = space + 1 + size
