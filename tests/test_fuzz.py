"""A bounded fuzz run: foreign bytes and values give a result or a refusal, and nothing else."""

import copy
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pmmo.core.errors import PmmoError
from pmmo.fetching.fetch import fetch
from pmmo.fetching.http_session import Patience
from pmmo.hdf5 import inspection
from pmmo.hdf5.layout_checks import check_features, check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile
from pmmo.model.build import build_system
from pmmo.model.systems import Sizes
from pmmo.own_movies.catalogue import read_catalogue
from pmmo.own_movies.embeddings import find_embedding
from pmmo.own_movies.saved_model import load_model
from pmmo.own_movies.tables import open_table
from pmmo.params import load_params
from tests.file_server import FileServer
from tests.movie_files import write_good
from tests.nasty_names import NAMES, assert_seen

ROOT = Path(__file__).parents[1]


def runs(count: int):
    """So many examples, or PMMO_FUZZ times as many, however slow the machine."""
    return settings(
        max_examples=count * int(os.environ.get("PMMO_FUZZ", "1")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def refused(run, *arguments: object, **options: object) -> None:
    """The call gives something, or refuses in a line."""
    try:
        run(*arguments, **options)
    except PmmoError as error:
        assert_seen(str(error))


# in the same process other tests let torch flush subnormal numbers to zero
FLOATS = st.floats(allow_subnormal=False)
PLAIN = st.none() | st.booleans() | st.integers() | FLOATS | st.text()
ANY = st.recursive(
    PLAIN | st.sampled_from([*NAMES.values()]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths to all that is in nested lists and dicts."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


@st.composite
def harmed(draw, good: object):
    """A copy of nested lists and dicts; one or two places hold something else, or nothing."""
    value = [copy.deepcopy(good)]
    for _ in range(draw(st.integers(1, 2))):
        *path, last = (0, *draw(st.sampled_from(places(value[0]))))
        block = value
        for key in path:
            block = block[key]
        if draw(st.booleans()) or not path:
            block[last] = draw(ANY)
        else:
            del block[last]
    return value[0]


# ---- tables

LINES = ("id,genres,text_0,image_0", "m1,Drama|War,1,2", 'm2,"[""Drama""]",0.5,3e9', "m3,,,-1")
CELLS = st.sampled_from([*"\",;\t|[](){}\n\r\\'", "1e999", "nan", "...", "\0", "\ufeff", "x.npy"])


@st.composite
def delimited(draw) -> bytes:
    """A CSV with pieces put in, cut out, or other bytes altogether."""
    text = draw(st.sampled_from(["\n", "\r\n"])).join(LINES)
    for _ in range(draw(st.integers(0, 6))):
        at, gone = draw(st.integers(0, len(text))), draw(st.integers(0, 4))
        text = text[:at] + draw(CELLS | st.text(max_size=3)) + text[at + gone :]
    data = text.encode(draw(st.sampled_from(["utf-8", "utf-16", "latin-1"])), "replace")
    return draw(st.just(data) | st.binary(max_size=200))


def read_all(path: Path) -> None:
    table = open_table(path)
    read_catalogue(table, "id", "genres", "|")
    for name in ("text", "image"):
        embedding = find_embedding(table, name, f"--{name}")
        for piece in table.pieces(embedding.columns):
            embedding.read(piece, 0, lambda row, column, what: PmmoError(f"{row} {column} {what}"))


@runs(150)
@given(data=delimited(), name=st.sampled_from(["t.csv", "t.tsv", "t.csv.gz"]))
def test_delimited_tables(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    refused(read_all, tmp_path / name)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    numbers = {"text": [[1.0, 2.0], None], "image": [[1.0], [2.0]]}
    pq.write_table(pa.table({"id": ["a", "b"], "genres": [["Drama"], []], **numbers}), path)
    return path.read_bytes()


@runs(12)
@given(data=st.data())
def test_parquet(tmp_path, parquet, data):
    changed = bytearray(parquet)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "t.parquet").write_bytes(changed)
    refused(read_all, tmp_path / "t.parquet")


# ---- models


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    row = replace(load_params(ROOT / "params.yaml").rows["pmmo-kl-l2"], width=4, maxout_units=3)
    sizes = Sizes(3, 4, 2, 30)
    with torch.random.fork_rng():
        save_file(build_system(row, sizes).state_dict(), folder / "model.safetensors")
    card = {"settings": asdict(row), "sizes": sizes._asdict(), "cycle": 0}
    card |= {"genres": ["a", "b"], "nan_text": "zeros"}
    (folder / "good.json").write_text(json.dumps(card))
    return folder


@runs(100)
@given(data=st.data())
def test_cards_of_models(model, data):
    card = data.draw(harmed(json.loads((model / "good.json").read_text())))
    (model / "model.json").write_text(json.dumps(card))
    refused(load_model, model, torch.device("cpu"))


# ---- servers

NUMBERS = st.sampled_from(["0", "-1", "1e9", "9" * 30, "0-65535", "bytes 0-9/9", "bytes */0", "x"])
HEADS = st.sampled_from(
    ["Content-Range", "Content-Length", "ETag", "Location", "Transfer-Encoding", "Connection"]
)


@runs(60)
@given(
    status=st.sampled_from([b"206", b"200", b"302", b"404", b"416", b"503", b"100", b"999", b"2x"]),
    heads=st.lists(st.tuples(HEADS, NUMBERS | st.text(max_size=20)), max_size=4),
    rest=st.binary(max_size=60),
)
def test_heads_of_servers(tmp_path, movies, status, heads, rest):
    lines = [f"{name}: {value}".encode() for name, value in heads]
    answer = b"\r\n".join([b"HTTP/1.1 %b OK" % status, *lines, b"", rest])

    def fault(request) -> bool:
        request.wfile.write(answer)
        request.close_connection = True
        return True

    with FileServer(movies, fault) as server:
        refused(fetch, tmp_path / "x", source=server.url, memory_limit_gb=1,
                work=tmp_path / "work", patience=Patience(1, 0.3, tries=1))  # fmt: skip
    assert not (tmp_path / "x").exists()


# ---- the parent of the process that looks into HDF5


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> Path:
    return write_good(tmp_path_factory.mktemp("movies") / "movies.hdf5")


@pytest.fixture(scope="module")
def facts(movies) -> dict:
    with LocalFile(movies) as file:
        return inspect(file)


@runs(200)
@given(data=st.data(), check=st.sampled_from(["layout", "features"]))
def test_facts_of_another_form(movies, facts, data, check):
    found, size = data.draw(harmed(facts)), movies.stat().st_size
    if check == "layout":
        refused(check_layout, found, "movies.hdf5", size, 1e9)
    else:
        refused(check_features, found, "movies.hdf5", size)


@runs(12)
@given(said=st.lists(ANY.map(json.dumps).map(str.encode) | st.binary(max_size=50), max_size=3))
def test_words_of_the_child(movies, monkeypatch, said):
    def main(hears: int, says: int, *_: object) -> None:
        os.write(says, b"\n".join([*said, b""]))
        os._exit(0)

    monkeypatch.setattr(inspection, "main", main)
    with LocalFile(movies) as file:
        refused(inspect, file, seconds=5)
