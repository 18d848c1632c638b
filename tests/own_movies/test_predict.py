"""Predictions from a kept model: the run's own, in batches of any size; and every refusal."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pmmo.config.settings import save_settings
from pmmo.core.errors import PmmoError
from pmmo.data.extract import extract
from pmmo.model.build import build_system
from pmmo.model.networks import evaluation_mode
from pmmo.model.systems import Sizes
from pmmo.own_movies.features import open_features
from pmmo.own_movies.predict import predict_file
from pmmo.own_movies.whole_set import Moments, norm_layers, predict_set
from pmmo.params import load_params
from pmmo.training import variant as runs
from pmmo.training.evaluation import predict
from tests.clone import ROOT, pmmo
from tests.movie_files import BAD, NAMES, ROWS, SPLITS, TEXT, arrays, value, write_bad, write_good

PARAMS = load_params(ROOT / "params.yaml")
TINY = {"width": 6, "maxout_units": 5, "epochs": 3, "batch_size": 18, "cycles": 2, "dropout": 0.2}
SYSTEMS = {
    "pmmo": PARAMS.rows["pmmo-kl-l2"],
    "pmmo-samples": replace(PARAMS.rows["pmmo-kl-l2"], prediction="samples", posterior_samples=4),
    "mmo": PARAMS.rows["mmo"],
    "gmu": PARAMS.rows["gmu"],
    "gmu-unregularised": PARAMS.rows["gmu-unregularised"],
    "released": PARAMS.rows["pmmo-released"],
}


def tiny(system: str, **changes):
    return replace(SYSTEMS[system], **(TINY | {"device": "cpu"} | changes))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """movies.hdf5 and a trained run of each system, in a folder that is not the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    text = arrays()["text"]
    text[50] = np.nan  # a movie of test without text
    write_good(folder / "movies.hdf5", text=text)
    extract(folder / "movies.hdf5", folder / "tensors", nan_text="zeros", memory_limit_gb=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PMMO_WORKERS", "1")
        for name in SYSTEMS:
            save_settings(tiny(name), folder / "settings.json")
            runs.train_row(folder / "settings.json", folder / "tensors", folder / "runs" / name)
    return folder


def as_tested(name: str) -> dict:
    """Options that give a run's own predictions."""
    if SYSTEMS[name].batch_norm_eval == "evaluation_set":
        return {"batch_norm": "evaluation_set"}
    return {"ensemble": False, "threshold": SYSTEMS[name].threshold, "calibrated": False}


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_of(path: Path, column: str = "probability") -> np.ndarray:
    """(N, G) of a column."""
    return np.array([float(line[column]) for line in lines_of(path)]).reshape(-1, len(NAMES))


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_predictions_that_the_run_stored_come_out_again(project, tmp_path, name, split):
    run, output = project / "runs" / name, tmp_path / "out.csv"
    predict_file(run, project / "movies.hdf5", output, split=split, batch_size=5, **as_tested(name))
    cycle = json.loads((run / "model.json").read_text())["cycle"]
    stored = load_file(run / f"predictions-{cycle}.safetensors")[split].numpy()
    np.testing.assert_allclose(table_of(output), stored, atol=2e-6)
    lines = lines_of(output)
    start, stop = SPLITS[split]
    assert [line["id"] for line in lines[:: len(NAMES)]] == [f"{i:07d}" for i in range(start, stop)]
    assert [line["genre"] for line in lines[: len(NAMES)]] == list(NAMES)
    threshold = SYSTEMS[name].threshold
    decided = [line["decision"] == "1" for line in lines]
    assert decided == (stored > threshold).ravel().tolist()
    assert all((line["sd"] != "") == name.startswith("pmmo") for line in lines)
    assert {entry.name for entry in tmp_path.iterdir()} == {"out.csv"}


def test_sd_is_the_spread_of_the_draws_that_the_run_averaged(project, tmp_path):
    run = project / "runs" / "pmmo"
    predict_file(
        run, project / "movies.hdf5", tmp_path / "x", split="test", samples=7, **as_tested("pmmo")
    )
    card = json.loads((run / "model.json").read_text())
    system = build_system(tiny("pmmo"), Sizes(**card["sizes"]))
    system.load_state_dict(load_file(run / "model.safetensors"))
    with open_features(project / "movies.hdf5", split="test") as features:
        (batch,) = features.batches(100)
        text, image = torch.from_numpy(batch.text), torch.from_numpy(batch.image)
        with torch.no_grad(), evaluation_mode(system, "evaluation_set"), torch.random.fork_rng():
            torch.manual_seed(card["settings"]["seed"] + card["cycle"])
            draws = torch.stack([system.predict(text, image, sample=True)[0] for _ in range(7)])
    np.testing.assert_allclose(table_of(tmp_path / "x", "sd"), draws.std(0), atol=2e-6)
    assert table_of(tmp_path / "x", "sd").min() > 0


@st.composite
def sets(draw):
    """A system with random weights, movies of any number and shape, and a batch size.

    In 64 bits: batch norm divides by sqrt(variance + 1e-5), so where the few movies of a set hardly
    differ it multiplies 32-bit rounding by up to 316 in each layer. Of 5,388 random GMUs on two or
    three movies, one came out 1.6e-4 apart in 32 bits and 8e-16 in 64.
    """
    movies, width = draw(st.integers(2, 40)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        name = draw(st.sampled_from(list(SYSTEMS)))
        system = build_system(tiny(name, width=width), Sizes(4, 5, 3, 100)).double()
        text, image = torch.randn(movies, 4) * 3, torch.randn(movies, 5).relu() * 10
        text, image = text.double(), image.double()
        image[:, 2] = draw(st.sampled_from([0.0, 2.5]))  # a feature that no poster shows
    return system, text, image, draw(st.integers(1, 45))


@settings(deadline=None, max_examples=60)
@given(drawn=sets(), samples=st.integers(1, 3))
def test_batches_of_any_size_predict_as_the_whole_set_at_once(drawn, samples):
    system, text, image, size = drawn
    if system.settings.posterior_samples is None:
        samples = 0
    own = samples if system.settings.prediction == "samples" else 0
    expected, _ = predict(system, text, image, samples=own, seed=11)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    state = torch.get_rng_state()
    found = list(
        predict_set(
            system,
            lambda: zip(text.split(size), image.split(size), strict=True),
            batch_norm=system.settings.batch_norm_eval,
            samples=samples,
            seed=11,
        )
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())
    torch.testing.assert_close(
        torch.cat([part.probabilities for part in found]), expected, atol=1e-7, rtol=0
    )


@settings(deadline=None)
@given(
    rows=st.integers(1, 50),
    size=st.integers(1, 50),
    mean=st.sampled_from([0.0, 1e4]),
    data=st.data(),
)
def test_moments_are_those_of_all_rows(rows, size, mean, data):
    seed = data.draw(st.integers(0, 1000))
    x = torch.from_numpy(np.random.default_rng(seed).normal(mean, 1, (rows, 3)))
    moments = Moments()
    for part in x.split(size):
        moments.add(part)
    found = moments.statistics()
    torch.testing.assert_close(found[0], x.mean(0))
    torch.testing.assert_close(found[1], x.var(0, correction=0), atol=1e-7, rtol=1e-6)


def test_every_batch_norm_layer_is_known_to_the_passes():
    system = build_system(tiny("gmu"), Sizes(4, 5, 3, 100))
    found = [layer for layers in norm_layers(system) for layer in layers]
    assert len(found) == 2 + system.settings.maxout_layers
    assert norm_layers(build_system(tiny("gmu-unregularised"), Sizes(4, 5, 3, 100))) == []


def test_with_the_statistics_of_training_a_movie_is_predicted_alike_in_any_company(
    project, tmp_path
):
    run = project / "runs" / "gmu"
    predict_file(run, project / "movies.hdf5", tmp_path / "all")
    values = {k: v[7:8] for k, v in arrays().items()}
    write_features(tmp_path / "one.hdf5", values)
    predict_file(run, tmp_path / "one.hdf5", tmp_path / "one")
    np.testing.assert_allclose(table_of(tmp_path / "one")[0], table_of(tmp_path / "all")[7], 1e-5)
    with pytest.raises(PmmoError, match=r"one.hdf5: it has one movie.*leave the option out"):
        predict_file(run, tmp_path / "one.hdf5", tmp_path / "no", batch_norm="evaluation_set")


def write_features(path: Path, values: dict) -> Path:
    """A file with ids, text and image alone."""
    with h5py.File(path, "w") as file:
        file["imdb_ids"] = np.array(values["ids"], "S")
        file["features"], file["vgg_features"] = values["text"], values["image"]
    return path


def test_new_movies_need_neither_genres_nor_splits(project, tmp_path):
    run, text = project / "runs" / "gmu", arrays()["text"]
    text[50] = np.nan
    path = write_features(tmp_path / "new.hdf5", arrays() | {"text": text})
    said = predict_file(run, path, tmp_path / "new.csv")
    predict_file(run, project / "movies.hdf5", tmp_path / "all.csv")
    assert (tmp_path / "new.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()
    assert len(lines_of(tmp_path / "new.csv")) == ROWS * len(NAMES)
    assert "without text, taken as zeros: 1" in said
    with pytest.raises(PmmoError, match=r"new.hdf5: dataset 'genres' is missing"):
        predict_file(run, path, tmp_path / "no", split="test")


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


def edit_card(run: Path, change) -> None:
    card = json.loads((run / "model.json").read_text())
    change(card)
    (run / "model.json").write_text(json.dumps(card))


def test_names_with_commas_and_quotes_survive(project, tmp_path):
    run = copy_of(project / "runs" / "gmu", tmp_path)
    edit_card(run, lambda card: card.update(genres=["Drama, sad", 'so "called"', "Kurzfilm ä"]))
    predict_file(run / "model.safetensors", project / "movies.hdf5", tmp_path / "x.csv")
    genres = [line["genre"] for line in lines_of(tmp_path / "x.csv")[:3]]
    assert genres == ["Drama, sad", 'so "called"', "Kurzfilm ä"]


def test_a_model_trained_to_refuse_movies_without_text_refuses_them(project, tmp_path):
    run = copy_of(project / "runs" / "gmu", tmp_path)
    edit_card(run, lambda card: card.update(nan_text="error"))
    with pytest.raises(PmmoError, match=r"row 50 \(id '0000050'\): the text vector is NaN"):
        predict_file(run, project / "movies.hdf5", tmp_path / "x.csv")


def edited(change):
    return lambda run: edit_card(run, change)


def cut_values(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def changed_values(change):
    def harm(run: Path) -> None:
        state = load_file(run / "model.safetensors")
        change(state)
        save_file(state, run / "model.safetensors")

    return harm


BIAS = "fusion.gate.bias"
HARM = {
    "no folder": (shutil.rmtree, "no such file dvc repro dvc checkout"),
    "no card": (lambda run: (run / "model.json").unlink(), "model.json no such file"),
    "card no JSON": (lambda run: (run / "model.json").write_text("{"), "model.json describe"),
    "card a list": (lambda run: (run / "model.json").write_text("[]"), "model.json lacks 'cycle'"),
    "card of before": (edited(lambda card: card.pop("genres")), "lacks 'genres' dvc repro"),
    "a genre less": (edited(lambda card: card["genres"].pop()), "2 genres for 3 outputs"),
    "genre no name": (edited(lambda card: card.update(genres=[1, 2, 3])), "list of names"),
    "sizes": (edited(lambda card: card["sizes"].update(text=0)), "sizes whole numbers"),
    "huge": (edited(lambda card: card["sizes"].update(text=10**9)), "text does not fit"),
    "wider": (edited(lambda card: card["sizes"].update(text=TEXT + 1)), "does not fit model.json"),
    **{
        f"{name} of {len(str(number))} digits": (
            edited(lambda card, n=name, v=number: card["settings"].update({n: v})),
            f"model.json: does not describe a model ({name} is ",
        )
        for name, number in (
            *(("width", 10**18), ("maxout_layers", 10**7), ("maxout_units", 10**9)),
            *(
                ("width", 10**4000),
                ("maxout_pieces", 2**62),
                ("seed", 2**70),
                ("learning_rate", 10**300),
            ),
        )
    },
    "together too many": (
        edited(lambda card: card["settings"].update(width=500, maxout_units=500, maxout_pieces=50)),
        "does not fit",
    ),
    "many movies": (edited(lambda card: card["sizes"].update(movies=10**30)), "movies is 1000"),
    "cycle": (edited(lambda card: card.update(cycle=-(2**70))), "cycle does not fit"),
    "genre unprintable": (
        edited(lambda card: card.update(genres=["a", "b\u202e", "c"])),
        "name 1 printable",
    ),
    "genre twice": (edited(lambda card: card.update(genres=["a", "b", "a"])), "'a' once"),
    "label unprintable": (edited(lambda card: card["settings"].update(label="a\x1b[2J")), "name 1"),
    "card too long": (
        lambda run: (run / "model.json").write_text(" " * (17 << 20)),
        "model.json 17,825,792 bytes",
    ),
    "card a nest": (lambda run: (run / "model.json").write_text("[" * 10**6), "model.json"),
    "another dtype": (
        changed_values(lambda state: state.update({BIAS: state[BIAS].double()})),
        f"{BIAS} float64 float32",
    ),
    "float8": (
        changed_values(lambda state: state.update({BIAS: state[BIAS].to(torch.float8_e4m3fn)})),
        f"{BIAS} float8",
    ),
    "settings": (edited(lambda card: card["settings"].update(width="x")), "width is 'x'"),
    "unknown setting": (edited(lambda card: card["settings"].update(colour=1)), "colour"),
    "values cut": (cut_values, "model.safetensors damaged"),
    "values no values": (
        lambda run: (run / "model.safetensors").write_text("version https://git-lfs"),
        "model.safetensors damaged",
    ),
    "tensor gone": (changed_values(lambda state: state.pop(BIAS)), f"{BIAS} absent"),
    "tensor too long": (
        changed_values(lambda state: state.update({BIAS: torch.zeros(7)})),
        f"{BIAS} (7,) (6,)",
    ),
    "NaN": (changed_values(lambda state: state[BIAS].fill_(np.nan)), f"{BIAS} not finite"),
}


@pytest.mark.parametrize("kind", HARM)
def test_a_harmed_model_is_refused_in_a_sentence(project, tmp_path, kind):
    run = copy_of(project / "runs" / "gmu", tmp_path)
    harm, words = HARM[kind]
    harm(run)
    (tmp_path / "x.csv").write_text("before")
    with pytest.raises(PmmoError) as caught:
        predict_file(run, project / "movies.hdf5", tmp_path / "x.csv")
    message = str(caught.value)
    assert message.startswith(str(run))
    assert "\n" not in message
    assert len(message) < 600
    assert not [word for word in words.split() if word not in message], message
    assert (tmp_path / "x.csv").read_text() == "before"
    assert {entry.name for entry in tmp_path.iterdir()} <= {"run", "x.csv"}


def test_a_probability_that_is_none_is_an_error(project, tmp_path):
    run = copy_of(project / "runs" / "gmu", tmp_path)
    changed_values(lambda state: [v.fill_(-9) for k, v in state.items() if "running_var" in k])(run)
    (tmp_path / "x.csv").write_text("before")
    with pytest.raises(PmmoError, match=r"movies.hdf5: .* no finite probability .* '0000000'"):
        predict_file(run, project / "movies.hdf5", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "before"


def test_a_fill_value_is_refused_by_row(project, tmp_path):
    path = write_good(tmp_path / "new.hdf5")
    value("features", (41, 2), 9.97e36)(path)
    with pytest.raises(
        PmmoError, match=r"'features', row 41 \(id '0000041'\), column 2: 9.97e\+36"
    ):
        predict_file(project / "runs" / "gmu", path, tmp_path / "x.csv", batch_size=4)


OF_LABELS = {kind for kind, (_, words) in BAD.items() if "target_names" in words} | {
    *("no genres", "label 2", "label -1", "int64 labels", "uint32 labels", "names too long"),
    *("no split", "split a text", "split without stop", "split enormous", "overlap", "gap"),
    *("split of numbers", "fractional bounds"),
    *("gap at the start", "gap at the end", "outside", "negative", "empty split", "no dev"),
    *("unknown split", "columns disagree", "record twice", "not available", "rows listed"),
    "provenance",
}


@pytest.mark.parametrize("kind", sorted(set(BAD) - {"enormous"}))
def test_a_bad_file_is_refused_as_extract_refuses_it(tmp_path, kind):
    """But for what a prediction does not read: labels, their names, and splits unless asked for."""
    path = write_bad(tmp_path / "movies.hdf5", kind)

    def read(split: str | None) -> None:
        with open_features(path, split=split) as features:
            for _ in features.batches(7):
                pass

    if kind in OF_LABELS - {"names too long"}:
        read(None)
    else:
        with pytest.raises(PmmoError) as caught:
            read(None)
        assert str(caught.value).startswith(str(path))
        assert not [word for word in BAD[kind][1].split() if word not in str(caught.value)]
    if kind in OF_LABELS - {"label 2", "label -1"}:
        with pytest.raises(PmmoError, match=r"movies\.hdf5: "):
            read("train")


def test_movies_of_another_kind_are_refused(project, tmp_path):
    run = project / "runs" / "gmu"
    for name, width in (("text", "features"), ("image", "vgg_features")):
        values = arrays() | {name: np.zeros((ROWS, 3), "<f4")}
        path = write_features(tmp_path / f"{name}.hdf5", values)
        with pytest.raises(PmmoError, match=rf"'{width}' has width 3, the model was trained on"):
            predict_file(run, path, tmp_path / "x.csv")
    path = write_good(tmp_path / "late.hdf5")
    value("vgg_features", (59, 3), np.inf)(path)
    (tmp_path / "x.csv").write_text("before")
    with pytest.raises(
        PmmoError, match=r"late.hdf5: dataset 'vgg_features', row 59 \(id '0000059'"
    ):
        predict_file(project / "runs" / "released", path, tmp_path / "x.csv", batch_size=4)
    assert (tmp_path / "x.csv").read_text() == "before"
    assert not list(tmp_path.glob("*.tmp"))


def test_wrong_options_are_refused(project, tmp_path):
    movies, output = project / "movies.hdf5", tmp_path / "x.csv"
    with pytest.raises(PmmoError, match=r"samples is 5: the system 'gmu' has no posterior"):
        predict_file(project / "runs" / "gmu", movies, output, samples=5)
    with pytest.raises(PmmoError, match=r"samples is 0: .* means over samples"):
        predict_file(project / "runs" / "pmmo-samples", movies, output, samples=0)
    with pytest.raises(PmmoError, match=r"samples is 1: one draw has no spread"):
        predict_file(project / "runs" / "pmmo", movies, output, samples=1)
    with pytest.raises(PmmoError, match=r"movies.hdf5: is read by this command"):
        predict_file(project / "runs" / "gmu", movies, movies)
    with pytest.raises(PmmoError, match=r"x.csv.*cannot be written"):
        predict_file(project / "runs" / "gmu", movies, movies / "x.csv")
    said = predict_file(project / "runs" / "pmmo", movies, output, samples=0, ensemble=False)
    assert {line["sd"] for line in lines_of(output)} == {""}
    assert "sd" not in said


def test_the_command_runs_in_any_folder_and_fails_in_words(project, tmp_path):
    shutil.copy(project / "movies.hdf5", tmp_path)
    run = os.path.relpath(project / "runs" / "gmu", tmp_path)
    done = pmmo(tmp_path, "predict", run, "movies.hdf5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("predictions.csv: 60 movies, 3 genres, by GMU Baseline")
    assert len(lines_of(tmp_path / "predictions.csv")) == ROWS * len(NAMES)
    failed = pmmo(tmp_path, "predict", "nowhere", "movies.hdf5")
    assert failed.returncode == 1
    assert failed.stderr.startswith("predict: nowhere/model.safetensors: there is no such file")
    assert "Traceback" not in failed.stderr


PEAK = """
import re, sys
from pathlib import Path
from pmmo.own_movies.predict import predict_file
run, output, *files = map(Path, sys.argv[1:])
for path in files:
    predict_file(run, path, output, batch_size=256)
    print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory from /proc")
def test_memory_does_not_grow_with_the_movies(project, tmp_path):
    """Ten times the movies, 72 MB more of them: the same memory but for some bytes per id."""
    run = copy_of(project / "runs" / "gmu", tmp_path)
    width = 2000
    with torch.random.fork_rng():
        sizes = Sizes(TEXT, width, len(NAMES), 100)
        save_file(build_system(tiny("gmu"), sizes).state_dict(), run / "model.safetensors")
    edit_card(run, lambda card: card.update(sizes=sizes._asdict()))
    (run / "far.safetensors").unlink()  # of other widths
    files = [
        write_features(tmp_path / f"{rows}.hdf5", arrays(rows, image=width))
        for rows in (1_000, 10_000)
    ]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, run, tmp_path / "x.csv", *files],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    first, second = (int(peak) * 1024 for peak in done.stdout.split())
    assert second - first < 25e6, (first, second)
