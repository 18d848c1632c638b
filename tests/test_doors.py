"""The nasty names at every door: shown whole and harmless, or refused in a line.

Reports have them in tests/reporting/test_names.py.
"""

import copy
import csv
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from pmmo.core.errors import PmmoError
from pmmo.core.text import hides
from pmmo.core.writing import write_bytes
from pmmo.data.extract import extract
from pmmo.data.movies import load_movies
from pmmo.fetching.fetch import fetch
from pmmo.fetching.http_session import Patience
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import LocalFile
from pmmo.model.build import build_system
from pmmo.model.systems import Sizes
from pmmo.own_movies import import_table as importing
from pmmo.own_movies.import_table import import_table
from pmmo.own_movies.predict import predict_file
from pmmo.own_movies.saved_model import load_model
from pmmo.own_movies.tables import Table, open_table
from pmmo.params import load_params
from tests.file_server import FileServer
from tests.movie_files import IMAGE, ROWS, TEXT, write_good
from tests.nasty_names import NAMES, assert_seen

ROOT = Path(__file__).parents[1]
MOVIES = 8
HOW = {"nan_text": "zeros", "memory_limit_gb": 1}
UTF8 = [name for name in NAMES.values() if name == name.encode("utf-8", "replace").decode()]


def passes(door: Callable[[], object]) -> object:
    """What a door gives, or None where it refuses; what it says is visible and has an end."""
    try:
        given = door()
    except PmmoError as error:
        assert_seen(error.lines())
        return None
    if isinstance(given, str):
        assert_seen(given)
    return given


@pytest.fixture
def imported(monkeypatch, tmp_path) -> Callable:
    """Import a table that has these columns; it needs no file, and no process that reads it."""
    vectors = [[float(row), 1.0] for row in range(MOVIES)]
    usual = {"id": [f"m{row}" for row in range(MOVIES)], "genres": [["Drama"]] * MOVIES}

    def run(options: dict | None = None, **columns: object) -> str:
        rows = pa.table({**usual, "text": vectors, "image": vectors, **columns})
        types = {field.name: field.type for field in rows.schema}
        table = Table(tmp_path / "t.parquet", types, lambda names: rows.select(names).to_batches())
        monkeypatch.setattr(importing, "open_table", lambda path: table)
        return import_table(table.path, tmp_path / "x.hdf5", **options or {})

    return run


def test_genres_of_a_table(tmp_path, imported):
    good = []
    for name in UTF8:
        for cell in ([[name]] * MOVIES, [json.dumps([name])] * MOVIES, [name] * MOVIES):
            # refused by the row; or by what the table lacks then, which is an image
            passes(partial(imported, genres=cell, image=[[None]] * MOVIES))
        try:
            importing.read_catalogue(one_genre(name), "id", "genres", "|")
            good.append(name)
        except PmmoError:
            pass
    assert len(good) > 12
    passes(partial(imported, genres=[good] * MOVIES))
    extract(tmp_path / "x.hdf5", tmp_path / "tensors", **HOW)
    names = load_movies(tmp_path / "tensors").genre_names
    assert len(names) > 12
    assert not any(map(hides, names))


def one_genre(name: str) -> Table:
    rows = pa.table({"id": ["m"], "genres": [[name]]})
    types = {field.name: field.type for field in rows.schema}
    return Table(Path("t.csv"), types, lambda names: rows.select(names).to_batches())


def test_ids_columns_and_splits_of_a_table(imported):
    """Each is refused in the end, by the last image vector."""
    imported = partial(imported, image=[[1.0, 2.0]] * 7 + [[None, 2.0]])
    for name in UTF8[::2]:
        passes(partial(imported, id=[name] * MOVIES))
        passes(partial(imported, split=[name] * MOVIES))
        passes(partial(imported, text=[[name]] * MOVIES, image=[name] * MOVIES))
        passes(partial(imported, image=[name] * MOVIES))
        passes(partial(imported, image=pa.array([{name or "x": 1}] * MOVIES)))
        more = {name: ["x"] * MOVIES, f"{name}_0": [True] * MOVIES, f"{name}_2": [True] * MOVIES}
        for option in ("text", "image", "id", "genres", "separator"):
            passes(partial(imported, {option: name}, **more))


def test_columns_of_real_tables(tmp_path):
    """In CSV, and in Parquet, whose library has messages of its own."""
    for number, name in enumerate(UTF8[::4]):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({name: [{name or "x": [1]}], f"{name}2": [1]}), path)
        assert name in open_table(path).types
        passes(partial(import_table, path, tmp_path / "x.hdf5", text=name))
    for name in UTF8:
        with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", name], [name, name], [name]])
        passes(partial(import_table, tmp_path / "t.csv", tmp_path / "x.hdf5", text=name))


def test_names_of_files(tmp_path):
    for name in UTF8:
        file = tmp_path / name.replace("/", "_").replace("\0", "")[:200]
        for path in (tmp_path / name.replace("\0", ""), file):
            with suppress(OSError):
                path.write_bytes(b"none")
            passes(partial(import_table, path.with_name(f"{path.name}.csv"), tmp_path / "x"))
            passes(partial(extract, path, tmp_path / "t", **HOW))
            passes(partial(predict_file, path, path, tmp_path / "x.csv"))
            passes(partial(write_bytes, path / "x", b""))


def test_names_in_a_movie_file(tmp_path):
    with LocalFile(write_good(tmp_path / "movies.hdf5")) as file:
        facts, size = inspect(file), file.size
    for name in NAMES.values():
        for change in (
            lambda facts, name=name: facts["target_names"].update(
                value=json.dumps([name, "a", "b"])
            ),
            lambda facts, name=name: facts["target_names"].update(error=name),
            lambda facts, name=name: facts["split"]["value"][0].update(split=name),
            lambda facts, name=name: facts["split"].update(error=name),
            lambda facts, name=name: facts["columns"]["features"].update(error=name),
            lambda facts, name=name: facts["columns"]["features"]["value"].update(type=name),
            lambda facts, name=name: facts["columns"]["features"]["value"].update(layout=name),
            lambda facts, name=name: facts["columns"]["features"]["value"].update(link=name),
        ):
            changed = copy.deepcopy(facts)
            change(changed)
            layout = passes(partial(check_layout, changed, "movies.hdf5", size, 1e9))
            assert layout is None or not any(map(hides, layout.genre_names))


@pytest.mark.parametrize("name", [NAMES[kind] for kind in ("bidi", "lines", "longer", "formula")])
def test_names_in_a_real_movie_file(tmp_path, name):
    path = write_good(tmp_path / "movies.hdf5", genre_names=("Drama", "War", name))
    passes(partial(extract, path, tmp_path / "tensors", **HOW))
    write_good(path, ids=[f"{row}{name[:40]}".encode() for row in range(ROWS)])
    passes(partial(extract, path, tmp_path / "tensors", **HOW))
    write_good(path)
    with h5py.File(path, "r+") as file:
        del file["features"]
        file["features"] = np.zeros(ROWS, [(name, "<f4"), ("other", "<f4")])
    passes(partial(extract, path, tmp_path / "tensors", **HOW))


@pytest.fixture
def model(tmp_path) -> Path:
    """A model, untrained, and movies."""
    settings = load_params(ROOT / "params.yaml").rows["gmu"]
    settings = replace(settings, width=4, maxout_units=3, device="cpu")
    sizes = Sizes(TEXT, IMAGE, 3, 36)
    with torch.random.fork_rng():
        save_file(build_system(settings, sizes).state_dict(), tmp_path / "model.safetensors")
    card = {"settings": asdict(settings), "sizes": sizes._asdict(), "cycle": 0}
    card |= {"genres": ["a", "b", "c"], "nan_text": "zeros"}
    (tmp_path / "model.json").write_text(json.dumps(card))
    write_good(tmp_path / "movies.hdf5", ids=[b"=%d" % row for row in range(ROWS)])
    return tmp_path


def test_names_in_a_model(model):
    good, names = json.loads((model / "model.json").read_text()), []
    for name in NAMES.values():
        for place in ("genres", "label", "name", "nan_text", "key"):
            card = copy.deepcopy(good)
            if place == "genres":
                card["genres"][1] = name
            elif place in ("label", "name"):
                card["settings"][place] = name
            else:
                card["settings" if place == "key" else place] = {name: name}
            (model / "model.json").write_text(json.dumps(card))
            taken = passes(partial(load_model, model, torch.device("cpu")))
            names += [name] if taken and place == "genres" else []
    assert len(names) > 12
    for start in range(0, len(names) - 2, 3):
        (model / "model.json").write_text(json.dumps(good | {"genres": names[start : start + 3]}))
        assert passes(partial(predict_file, model, model / "movies.hdf5", model / "x.csv"))
        with (model / "x.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        assert len(rows) == 3 * ROWS
        assert {row[0][:2] for row in rows} == {"'="}
        assert not any(row[1].startswith(("=", "+", "-", "@")) for row in rows)
        assert not any(hides(cell) for row in rows for cell in row)


HEADS = (
    *("reason", "Location", "ETag", "Content-Range", "Content-Encoding", "Content-Type"),
    *("Retry-After", "Content-Length"),
)
HASTY = Patience(connect=2, stall=0.3, tries=1, backoff=0.01)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # urllib3's, of two lengths
@pytest.mark.parametrize("head", HEADS)
def test_what_a_server_calls_things(tmp_path, head):
    status = {"reason": 404, "Location": 302, "Retry-After": 503}.get(head, 206)

    def fault(request) -> bool:
        reason = raw.replace(b"\n", b" ") if head == "reason" else b"X"
        value = b"http://127.0.0.1:1/" + raw if head == "Location" else raw
        request.wfile.write(b"HTTP/1.1 %d %b\r\n" % (status, reason))
        request.wfile.write(b"%b: %b\r\nContent-Length: 0\r\n\r\n" % (head.encode(), value))
        request.close_connection = True
        return True

    with FileServer(write_good(tmp_path / "movies.hdf5"), fault) as server:
        get = partial(fetch, tmp_path / "y", source=server.url, memory_limit_gb=1, patience=HASTY)
        for name in NAMES.values():
            raw = name.encode("utf-8", "surrogatepass")[:5000]
            assert passes(partial(get, work=tmp_path / "work")) is None


def test_names_in_params(tmp_path, monkeypatch):
    good = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name in NAMES.values():
        for path in (
            *(("data", "source"), ("variants", "gmu", "label"), ("variants", "gmu", "system")),
            *(("variants", name), ("elbo",), (name,), ("data", "mirrors"), ("data", "sha256")),
        ):
            tree = block = copy.deepcopy(good)
            *blocks, last = path
            for key in blocks:
                block = block[key]
            block[last] = [name] if last == "mirrors" else name
            monkeypatch.setattr("pmmo.params.read_yaml", lambda path, tree=tree: tree)
            passes(lambda: load_params(tmp_path / "params.yaml").rows["gmu"].label)
