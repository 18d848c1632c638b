"""`pmmo embed` from tables to files: a word2vec file made here and an image encoder of means."""

import csv
import errno
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pmmo.core.errors import PmmoError
from pmmo.data.extract import extract
from pmmo.data.movies import load_movies
from pmmo.embedding import image as images
from pmmo.embedding.embed import embed_table
from pmmo.embedding.encoder import Encoder, identity, sha256
from pmmo.fetching.fetch import fetch
from pmmo.hdf5.encoders import check_same_encoders, read_encoders
from pmmo.own_movies.features import open_features
from pmmo.own_movies.predict import predict_file
from pmmo.training import variant as runs
from scripts import draw_movies
from tests.clone import pmmo
from tests.own_movies.test_predict import save_settings, tiny

WORDS = "3 2\nwar 1 2\nlove 3 -4\nHe 0.5 0.5\n"


def means(path: str, device: torch.device) -> Encoder:
    """The mean colour of a poster, scaled by the number in the file of weights."""
    scale = float(Path(path).read_text())

    def prepare(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image, np.float32).mean(axis=(0, 1)))

    def encode(posters: list[torch.Tensor]) -> np.ndarray:
        return (scale * torch.stack(list(posters))).numpy()

    return Encoder(identity("means", Path(path), "1"), 3, prepare, encode)


@pytest.fixture(autouse=True)
def _means(monkeypatch):
    monkeypatch.setitem(images.IMAGE_ENCODERS, "means", means)


def table(folder: Path, rows: list[tuple[str, ...]], columns=("id", "genres", "plot", "poster")):
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / "t.csv"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve movies in a table, their posters, word vectors and weights."""
    (tmp_path / "words.vec").write_text(WORDS)
    (tmp_path / "weights").write_text("2.0")
    rows = []
    for number in range(12):
        Image.new("RGB", (5 + number, 7), (number, 2 * number, 3)).save(tmp_path / f"{number}.png")
        plot = ("He goes to war.", "Love and war, war.")[number % 2]
        rows.append((f"m{number}", ("War", "Drama|War")[number % 2], plot, f"{number}.png"))
    table(tmp_path, rows)
    return tmp_path


def embed(folder: Path, output: str = "own.hdf5", **options) -> str:
    given = {"image_encoder": f"means:{folder / 'weights'}"} | options
    return embed_table(
        folder / "t.csv",
        folder / output,
        **({"text_encoder": f"word2vec:{folder / 'words.vec'}"} | given),
    )


def columns_of(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    with h5py.File(path) as file:
        return (
            [id.decode() for id in file["imdb_ids"][()]],
            file["features"][()],
            file["vgg_features"][()],
        )


def fetched(folder: Path) -> Path:
    """data/movies.hdf5 as the stage `fetch` makes it of own.hdf5."""
    target = folder / "fetched.hdf5"
    fetch(target, source=str(folder / "own.hdf5"), memory_limit_gb=1, work=folder / "work")
    return target


def change(folder: Path, row: int, **cells: str) -> None:
    with (folder / "t.csv").open(encoding="utf-8") as file:
        movies = list(csv.DictReader(file))
    movies[row] |= cells
    table(folder, [tuple(movie.values()) for movie in movies])


# --- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_each_movie_has_the_vectors_of_its_plot_and_poster(folder, batch_size):
    said = embed(folder, batch_size=batch_size)
    assert "12 movies (train 7, dev 2, test 3); text 2, image 3 wide" in said
    ids, text, image = columns_of(folder / "own.hdf5")
    assert sorted(ids) == sorted(f"m{n}" for n in range(12))
    plots = {
        0: np.mean([[0.5, 0.5], [1, 2]], axis=0),
        1: np.mean([[3, -4], [1, 2], [1, 2]], axis=0),
    }
    for id, words, colour in zip(ids, text, image, strict=True):
        number = int(id[1:])
        np.testing.assert_allclose(words, plots[number % 2], rtol=1e-6)
        np.testing.assert_allclose(colour, [2 * number, 4 * number, 6])
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == set()


def test_the_same_command_gives_the_same_bytes(folder):
    embed(folder, "a.hdf5")
    embed(folder, "b.hdf5")
    assert (folder / "a.hdf5").read_bytes() == (folder / "b.hdf5").read_bytes()


def test_the_encoders_go_with_the_file_to_the_tensors(folder):
    embed(folder)
    with open_features(folder / "own.hdf5") as features:
        found = features.encoders
    assert (found["text"].name, found["text"].file) == ("word2vec", "words.vec")
    assert found["text"].sha256 == sha256(folder / "words.vec")
    extract(fetched(folder), folder / "tensors", nan_text="zeros", memory_limit_gb=1)
    assert read_encoders(load_movies(folder / "tensors").provenance) == found
    with h5py.File(folder / "own.hdf5") as file:
        assert "by genres, seed 0" in json.loads(file.attrs["provenance"])["note"]


# --- bad movies ----------------------------------------------------------------------------------


FAULTS = {
    "empty plot": ({"plot": " "}, "row 3 (id 'm2'), column 'plot': the plot is empty"),
    "no known word": ({"plot": "Nothing."}, "column 'plot': the encoder knows no word of it"),
    "no path": ({"poster": ""}, "column 'poster': there is no path of an image"),
    "no file": ({"poster": "x.png"}, "there is no file"),
    "no image": ({"poster": "t.csv"}, "t.csv cannot be read as an image"),
    "cut": ({"poster": "cut.png"}, "cut.png cannot be read as an image"),
    "bomb": ({"poster": "bomb.png"}, "bomb.png has 8,000 x 8,000 pixels, too many"),
    "folder": ({"poster": "."}, "there is no file"),
    "zero byte": ({"poster": "a\x00b.png"}, "there is no file"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("on_bad", ["error", "zeros", "drop"])
def test_a_movie_that_cannot_be_encoded_is_named_and_handled_as_asked(folder, fault, on_bad):
    cells, message = FAULTS[fault]
    (folder / "cut.png").write_bytes((folder / "3.png").read_bytes()[:-30])
    if fault == "bomb":
        Image.new("1", (8000, 8000)).save(folder / "bomb.png")
    change(folder, 2, **cells)
    if on_bad == "error":
        with pytest.raises(PmmoError) as error:
            embed(folder)
        assert message in str(error.value)
        assert "row 3 (id 'm2')" in str(error.value)
        assert "--on-bad drop" in str(error.value)
        assert not (folder / "own.hdf5").exists()
        return
    said = embed(folder, on_bad=on_bad)
    assert message in said
    ids, text, image = columns_of(folder / "own.hdf5")
    if on_bad == "drop":
        assert sorted(ids) == sorted(f"m{n}" for n in range(12) if n != 2)
        assert np.isfinite(text).all()
        return
    row = ids.index("m2")
    assert np.isnan(text[row]).all() == ("plot" in cells)
    assert (image[row] == 0).all() == ("poster" in cells)
    extract(folder / "own.hdf5", folder / "tensors", nan_text="zeros", memory_limit_gb=1)


def test_all_faults_of_the_first_look_are_counted(folder):
    for row in (1, 4, 7):
        change(folder, row, plot="")
    with pytest.raises(PmmoError, match=r"row 2 .* Other movies with a fault: 2"):
        embed(folder)


def test_without_any_good_movie_there_is_no_file(folder):
    table(folder, [(f"m{n}", "War", "", "x.png") for n in range(12)])
    with pytest.raises(PmmoError, match=r"no movie is left: .*row 1"):
        embed(folder, on_bad="drop")
    assert not (folder / "own.hdf5").exists()


def test_an_encoder_that_gives_no_number_is_refused(folder):
    (folder / "weights").write_text("inf")
    with pytest.raises(
        PmmoError, match=r"row 1 .*the encoder gives no numbers that can be squared"
    ):
        embed(folder)


def test_a_poster_that_goes_while_others_are_encoded_is_named(folder, monkeypatch):
    looks: dict[Path, int] = {}

    def is_file(path: Path) -> bool:  # there at the first look, not at the second
        looks[path] = looks.get(path, 0) + 1
        return looks[path] == 1

    monkeypatch.setattr("pmmo.embedding.embed.is_file", is_file)
    with pytest.raises(PmmoError, match=r"row 1 .*its file is gone.* Other movies with a fault"):
        embed(folder)
    assert not (folder / "own.hdf5").exists()


def test_a_full_disk_is_a_sentence(folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PmmoError, match=r"no room for the vectors of 12 movies \(No space left"):
        embed(folder)
    assert not (folder / "own.hdf5").exists()


def test_no_input_is_replaced(folder):
    for name in ("t.csv", "words.vec", "weights"):
        before = (folder / name).read_bytes()
        with pytest.raises(PmmoError, match="is read by this command"):
            embed(folder, name, image_encoder=f"means:x:{folder / 'weights'}")
        assert (folder / name).read_bytes() == before


# --- what is refused before long work ------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_encoder": "glove:x"}, "--text-encoder is 'glove:x'; expected one of word2vec:…"),
        ({"text_encoder": "word2vec"}, "--text-encoder is 'word2vec'"),
        ({"image_encoder": "vgg16"}, "--image-encoder is 'vgg16'; expected one of timm:…"),
        ({"image_encoder": "timm:resnet18"}, "expected timm:NAME:WEIGHTS"),
        ({"image_encoder": "torchvision:vgg16:no.pth"}, "no.pth: there is no file of weights"),
        ({"text_encoder": "sentence-transformers:no"}, "there is no folder of a sentence encoder"),
        ({"text_encoder": "gensim:no"}, "there is no file of gensim's"),
        ({"text_column": "story"}, "has no column 'story'"),
        ({"image_column": "id", "separator": ""}, "--separator is empty"),
    ],
)
def test_a_wrong_option_is_a_sentence(folder, options, said):
    with pytest.raises(PmmoError) as error:
        embed(folder, **options)
    assert said in str(error.value)
    assert not (folder / "own.hdf5").exists()


def test_a_column_of_numbers_is_no_plot(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "plot": [1.5], "poster": ["x"]}), folder / "t.parquet")
    with pytest.raises(PmmoError, match=r"column 'plot' holds double, expected text"):
        embed_table(
            folder / "t.parquet", folder / "x.hdf5", unlabelled=True,
            text_encoder=f"word2vec:{folder / 'words.vec'}", image_encoder="means:x",
        )  # fmt: skip


@pytest.mark.parametrize("package", ["gensim", "spacy", "sentence_transformers", "timm"])
def test_a_missing_package_is_named(folder, monkeypatch, package):
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    kind = package.replace("_", "-")
    option = "image_encoder" if kind == "timm" else "text_encoder"
    where = f"{kind}:resnet18:{folder / 'weights'}" if kind == "timm" else f"{kind}:{folder}"
    with pytest.raises(PmmoError, match=f"needs the package {package}.*requirements-embed.txt"):
        embed(folder, **{option: where})


def test_a_package_that_does_not_load_is_a_sentence(folder, monkeypatch):
    (folder / "broken").mkdir()
    (folder / "broken/timm.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(str(folder / "broken"))
    with pytest.raises(PmmoError, match=r"the package timm cannot be loaded \(operator nms"):
        embed(folder, image_encoder=f"timm:resnet18:{folder / 'weights'}")


def test_weights_of_another_model_or_damaged_ones_are_refused(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = model.state_dict()
    good = {key: value for key, value in state.items() if "num_batches" not in key}
    path = tmp_path / "w.safetensors"
    for change, said in (
        ({"0.weight": torch.zeros(3, 9)}, r"'0.weight': \(3, 9\), expected \(3, 2\)"),
        ({"9.weight": torch.zeros(1)}, r"'9.weight': \(1,\), expected absent"),
        ({"0.bias": torch.full((3,), torch.nan)}, "'0.bias' is not finite"),
    ):
        save_file(good | change, path)
        with pytest.raises(PmmoError, match=said):
            images.fill(model, path, ["head."])
    save_file(good | {"head.weight": torch.zeros(7)}, path)
    images.fill(model, path, ["head."])
    torch.save({"state_dict": {f"module.{k}": v for k, v in good.items()}}, tmp_path / "w.pth")
    images.fill(model, tmp_path / "w.pth", [])
    for content in (b"not weights", b""):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(PmmoError, match=r"w\.pth: cannot be read as weights"):
            images.fill(model, tmp_path / "w.pth", [])
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(PmmoError, match="something else than tensors"):
        images.fill(model, tmp_path / "w.pth", [])


def test_a_model_that_gives_maps_is_refused(tmp_path):
    (tmp_path / "w").write_bytes(b"")
    maps, turn = torch.nn.Conv2d(3, 2, 3), lambda image: torch.zeros(3, 8, 8)
    with pytest.raises(PmmoError, match=r"shape \(1, 2, 6, 6\), expected a vector per image"):
        images.image_encoder("maps", tmp_path / "w", "torch", maps, turn, torch.device("cpu"))


def test_a_poster_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.new("L", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    opened = images.open_image(tmp_path / "a.jpg")
    assert (opened.mode, opened.size) == ("RGB", (4, 8))


# --- to the model and back -----------------------------------------------------------------------


def test_two_commands_from_drawn_movies_to_genres_and_features_of_others_are_refused(
    tmp_path, monkeypatch
):
    """The worked example of docs/own-data.md, with the mean colour as image encoder."""
    draw_movies.main([str(tmp_path)])
    (tmp_path / "weights").write_text("1.0")
    encoders = {
        "text_encoder": f"word2vec:{tmp_path / 'words.vec'}",
        "image_encoder": f"means:{tmp_path / 'weights'}",
    }
    embed_table(tmp_path / "movies.csv", tmp_path / "own.hdf5", **encoders)
    extract(fetched(tmp_path), tmp_path / "tensors", nan_text="zeros", memory_limit_gb=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")
    save_settings(tiny("mmo", cycles=1), tmp_path / "settings.json")
    runs.train_row(tmp_path / "settings.json", tmp_path / "tensors", tmp_path / "run")
    new = tmp_path / "new.hdf5"
    embed_table(tmp_path / "new-movies.csv", new, unlabelled=True, **encoders)
    predict_file(tmp_path / "run", new, tmp_path / "out.csv", batch_norm="running")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 6 * 4
    (tmp_path / "weights").write_text("1.5")
    embed_table(tmp_path / "new-movies.csv", new, unlabelled=True, **encoders)
    with pytest.raises(PmmoError) as error:
        predict_file(tmp_path / "run", new, tmp_path / "out.csv", batch_norm="running")
    assert "its image features are of means (weights, sha256 " in str(error.value)
    assert "the model was trained on those of means (weights, sha256" in str(error.value)
    with h5py.File(new, "r+") as file:
        del file.attrs["provenance"]  # as a file that does not say
    predict_file(tmp_path / "run", new, tmp_path / "out.csv", batch_norm="running")


def test_what_has_no_record_fits_every_model():
    check_same_encoders({}, {}, "x.hdf5")


GOOD = {"name": "word2vec", "file": "a", "version": "1", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "encoders",
    [
        [],
        {"text": GOOD},
        {"text": GOOD, "image": {"name": "x"}},
        {"text": GOOD, "image": GOOD | {"sha256": "x"}},
        {"text": GOOD, "image": GOOD | {"name": "a\x1b[31m"}},
        {"text": GOOD, "image": GOOD | {"name": "x" * 1000}},
        {"text": GOOD, "image": GOOD | {"version": 1}},
    ],
    ids=range(7),
)
def test_a_record_that_embed_did_not_write_is_refused(folder, encoders):
    embed(folder)
    with h5py.File(folder / "own.hdf5", "r+") as file:
        file.attrs["provenance"] = json.dumps({"kind": "file", "encoders": encoders})
    with pytest.raises(PmmoError, match=r"file attribute 'provenance': .*encoder"):
        extract(folder / "own.hdf5", folder / "tensors", nan_text="zeros", memory_limit_gb=1)
    with pytest.raises(PmmoError, match="encoder"), open_features(folder / "own.hdf5"):
        pass


def test_the_command_says_what_is_wrong(folder):
    encoders = "--text-encoder", "word2vec:words.vec", "--image-encoder", "timm:resnet18:none.pth"
    done = pmmo(folder, "embed", "t.csv", "own.hdf5", *encoders)
    assert done.returncode == 1
    assert done.stderr.startswith("embed: none.pth: there is no file of weights")
