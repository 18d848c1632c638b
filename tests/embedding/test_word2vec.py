"""Word vectors of word2vec, text and binary, and the mean of a plot's words."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmmo.core.errors import PmmoError
from pmmo.embedding import word2vec as reading
from pmmo.embedding.text import word2vec
from pmmo.embedding.word2vec import read_word2vec

VECTORS = {
    "war": [1.0, 0.0, -2.5],
    "War": [0.5, 4.0, 1e-7],
    "café": [3.0, 3.0, 3.0],
    "don't": [0.0, 0.0, 8.0],
}
CPU = torch.device("cpu")


def as_text(vectors: dict) -> bytes:
    width = len(next(iter(vectors.values())))
    lines = [f"{word} {' '.join(map(repr, vector))}" for word, vector in vectors.items()]
    return "\n".join([f"{len(lines)} {width}", *lines, ""]).encode()


def as_binary(vectors: dict, end: bytes = b"\n") -> bytes:
    """As the C program of word2vec writes it, with a line break after each vector."""
    width = len(next(iter(vectors.values())))
    parts = [
        word.encode() + b" " + np.array(vector, "<f4").tobytes() + end
        for word, vector in vectors.items()
    ]
    return b"".join([f"{len(vectors)} {width}\n".encode(), *parts])


def written(tmp_path: Path, content: bytes, name: str = "words") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


FORMS = {
    "text": as_text,
    "binary": as_binary,
    "binary without line breaks": lambda vectors: as_binary(vectors, b""),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["words", "words.gz"])
def test_the_words_that_are_asked_for_are_read(tmp_path, form, name):
    path = written(tmp_path, FORMS[form](VECTORS), name)
    found, width = read_word2vec(path, {"war", "café", "absent"})
    assert (set(found), width) == ({"war", "café"}, 3)
    for word, vector in found.items():
        np.testing.assert_array_equal(vector, np.array(VECTORS[word], "<f4"))


@settings(deadline=None, max_examples=30)
@given(
    words=st.sets(
        st.text(st.characters(codec="utf-8", exclude_characters=" \n\r\x00"), min_size=1)
    ),
    width=st.integers(1, 5),
    block=st.integers(1, 50),
)
def test_any_words_come_out_of_blocks_of_any_size(tmp_path_factory, words, width, block):
    words = {word for word in words if word.split() == [word]} or {"a"}
    values = np.random.default_rng(width).normal(size=(len(words), width)).astype("<f4")
    vectors = {word: vector.tolist() for word, vector in zip(sorted(words), values, strict=True)}
    path = written(tmp_path_factory.mktemp("w"), as_binary(vectors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        with path.open("rb") as file:
            count, width = reading.header(file.readline())
            found = dict(reading.binary_vectors(file, count, width, {w.encode() for w in words}))
    assert {word.decode(): vector.tolist() for word, vector in found.items()} == vectors


def test_a_plot_is_the_mean_of_its_known_words(tmp_path):
    """As written, else in lower case; a word that is there twice counts twice."""
    path = written(tmp_path, as_text(VECTORS))
    plots = ["War, war! WAR?", "Nothing known.", "Don’t go to the Café…"]
    encoder = word2vec(str(path), lambda: plots, CPU)
    found = encoder.encode(plots)
    war = (np.array(VECTORS["War"]) + 2 * np.array(VECTORS["war"])) / 3
    other = (np.array(VECTORS["don't"]) + VECTORS["café"]) / 2
    np.testing.assert_allclose(found[[0, 2]], [war, other], rtol=1e-6)
    assert np.isnan(found[1]).all()
    assert (encoder.width, encoder.identity.name) == (3, "word2vec")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its first line is b''"),
        (b"the 0.1 0.2 0.3\nof 0.1 0.2 0.3\n", "its first line is b'the 0.1"),  # GloVe has none
        (b"5 0\n", "5 words of width 0"),
        (b"2 999999999\n", "2 words of width 999999999"),
        (as_text(VECTORS)[:-30], "numbers, expected 3"),
        (as_text(VECTORS).replace(b"\n", b"\n", 1)[:40], "it ends after"),
        (as_text(VECTORS).replace(b"8.0", b"x"), "something else than numbers"),
        (as_text(VECTORS).replace(b"8.0", b"nan"), '"don\'t" is not finite'),
        (as_binary(VECTORS)[:-20], "it ends after 3 of 4 words"),
        (b"2 3\n" + b"x" * 10_000, "word 1 does not end"),
    ],
    ids=range(10),
)
def test_a_damaged_file_is_a_sentence(tmp_path, content, said):
    with pytest.raises(PmmoError) as error:
        read_word2vec(written(tmp_path, content), set(VECTORS))
    assert said in str(error.value)
    assert "words" in str(error.value)


def test_no_file_is_a_sentence(tmp_path):
    with pytest.raises(PmmoError, match=r"there is no file of word vectors. Nothing is downloaded"):
        word2vec(str(tmp_path / "none.vec"), list, CPU)
    with pytest.raises(PmmoError, match="cannot be read as word vectors"):
        read_word2vec(written(tmp_path, as_text(VECTORS)).rename(tmp_path / "x.gz"), {"war"})


def test_gensim_reads_the_same(tmp_path):
    keyedvectors = pytest.importorskip("gensim.models.keyedvectors", reason="gensim is optional")
    for form, binary in (("text", False), ("binary", True)):
        path = written(tmp_path, FORMS[form](VECTORS), form)
        theirs = keyedvectors.KeyedVectors.load_word2vec_format(str(path), binary=binary)
        ours, _ = read_word2vec(path, set(theirs.key_to_index))
        assert set(ours) == set(VECTORS)
        for word, vector in ours.items():
            np.testing.assert_array_equal(vector, theirs[word])
