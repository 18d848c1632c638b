"""Text encoders: the mean of word vectors, as in the published file, or a sentence encoder.

A plot without a known word has no vector: NaN throughout, the published file's sign for it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pmmo.core.errors import PmmoError
from pmmo.embedding.encoder import Encoder, combined, identity, optional, sha256, weights_at
from pmmo.embedding.word2vec import read_word2vec

WORD = re.compile(r"\w+(?:'\w+)*")
PIPES = (  # of spaCy's models: what comes after the tokenizer
    *("tok2vec", "tagger", "morphologizer", "parser", "senter", "ner"),
    *("attribute_ruler", "lemmatizer", "trainable_lemmatizer", "transformer"),
)
Plots = Callable[[], Iterable[str]]  # all plots of the table, read anew at each call


def as_it_is(text: str) -> str:
    return text


def forms(plot: str) -> Iterator[tuple[str, str]]:
    """Each word as it is written, and in lower case."""
    for word in WORD.findall(plot.replace("’", "'")):
        yield word, word.lower()


def means(known: Iterable[list[np.ndarray]], width: int) -> np.ndarray:
    """(n, width) float32: the mean vector of the known words of each plot; NaN without any."""
    none = np.full(width, np.nan)
    found = [np.mean(vectors, axis=0, dtype=np.float64) if vectors else none for vectors in known]
    return np.array(found, "<f4")


def mean_vectors(
    plots: Sequence[str], lookup: Callable[[str], np.ndarray | None], width: int
) -> np.ndarray:
    """(n, width): the mean vector of each plot, of its words that `lookup` knows."""

    def known(plot: str) -> list[np.ndarray]:
        found = (lookup(word if lookup(word) is not None else lower) for word, lower in forms(plot))
        return [vector for vector in found if vector is not None]

    return means(map(known, plots), width)


def word2vec(path: str, plots: Plots, _: torch.device) -> Encoder:
    file = weights_at(Path(path), "file of word vectors")
    words = {form for plot in plots() for both in forms(plot) for form in both}
    vectors, width = read_word2vec(file, words)
    encode = partial(mean_vectors, lookup=vectors.get, width=width)
    return Encoder(identity("word2vec", file, "1"), width, as_it_is, encode)


def gensim(path: str, _: Plots, __: torch.device) -> Encoder:
    """Vectors that gensim saved. Such a file is a pickle: it can run anything when it is read."""
    file = weights_at(Path(path), "file of gensim's")
    module = optional("gensim.models.keyedvectors")
    try:
        vectors = module.KeyedVectors.load(str(file))
        vectors = getattr(vectors, "wv", vectors)  # a whole Word2Vec or FastText
        index, table = vectors.key_to_index, vectors.vectors
    except Exception as error:  # a pickle may raise anything
        raise PmmoError(
            f"{file}: cannot be read as KeyedVectors of gensim ({error!s:.200}). Give what their "
            "`save` wrote, with the files beside it; other formats: --text-encoder word2vec:PATH."
        ) from None
    beside = [p for p in file.parent.iterdir() if p.name.startswith(f"{file.name}.")]
    hashed = combined([file, *beside], file.parent)  # large tables lie in FILE.vectors.npy

    def lookup(word: str) -> np.ndarray | None:
        return table[index[word]] if word in index else None

    encode = partial(mean_vectors, lookup=lookup, width=table.shape[1])
    made = identity("gensim", file, version("gensim"), hashed)
    return Encoder(made, table.shape[1], as_it_is, encode)


def spacy(name: str, _: Plots, __: torch.device) -> Encoder:
    """The word vectors of a spaCy model, an installed package or a folder, and its tokenizer."""
    module = optional("spacy")
    if not module.util.is_package(name) and not Path(name).is_dir():
        raise PmmoError(
            f"--text-encoder spacy:{name}: no package or folder has this name. Nothing is "
            "downloaded: install the model, or give its folder."
        )
    try:
        nlp = module.load(name, exclude=PIPES)
    except Exception as error:  # whatever a package raises
        raise PmmoError(f"{name}: cannot be loaded as a spaCy model ({error!s:.200}).") from None
    width = nlp.vocab.vectors_length
    if not width:
        raise PmmoError(
            f"{name}: this spaCy model has no word vectors. Take one that has, such as those that "
            "end with _md or _lg."
        )

    def known(document: Any) -> list[np.ndarray]:
        return [
            token.vector
            for token in document
            if token.has_vector and not token.is_punct and not token.is_space
        ]

    def encode(plots: Sequence[str]) -> np.ndarray:
        return means(map(known, nlp.tokenizer.pipe(plots)), width)

    meta = nlp.meta
    kind = f"spacy:{meta['lang']}_{meta['name']}"
    made = identity(kind, Path(name), meta["version"], sha256(Path(nlp.path)))
    return Encoder(made, width, as_it_is, encode)


def sentence_transformers(path: str, _: Plots, device: torch.device) -> Encoder:
    folder = weights_at(Path(path), "folder of a sentence encoder")
    module = optional("sentence_transformers")
    try:
        model = module.SentenceTransformer(str(folder), device=str(device), local_files_only=True)
    except Exception as error:  # whatever a package raises
        raise PmmoError(
            f"{folder}: cannot be loaded as a sentence-transformers folder ({error!s:.200}). Give "
            "what its `save` wrote; nothing is downloaded."
        ) from None

    def encode(plots: Sequence[str]) -> np.ndarray:
        return np.asarray(
            model.encode(list(plots), batch_size=len(plots), show_progress_bar=False), "<f4"
        )

    made = identity("sentence-transformers", folder, version("sentence-transformers"))
    return Encoder(made, encode(["A plot."]).shape[1], as_it_is, encode)


TEXT_ENCODERS: Mapping[str, Callable[[str, Plots, torch.device], Encoder]] = {
    "word2vec": word2vec,
    "gensim": gensim,
    "spacy": spacy,
    "sentence-transformers": sentence_transformers,
}
