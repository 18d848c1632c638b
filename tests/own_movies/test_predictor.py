"""What was found is what you get: the stored choice, by the command, from Python and in reports."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score

import pmmo
from pmmo.__main__ import make_parser
from pmmo.analysis.intervals import resample
from pmmo.analysis.post_hoc import as_predicted, guesses, options
from pmmo.analysis.post_hoc import row as report_rows
from pmmo.analysis.run_reader import read_movies, read_run
from pmmo.config.settings import save_settings
from pmmo.core.errors import PmmoError
from pmmo.core.names import AVERAGES
from pmmo.data.extract import extract
from pmmo.decisions.stored import read_decision, write_decision
from pmmo.decisions.temperature import calibrate
from pmmo.model.networks import evaluation_mode, fuse
from pmmo.own_movies.predict import predict_file
from pmmo.params import load_params
from pmmo.training import variant as runs
from tests.movie_files import NAMES, arrays, write_good
from tests.own_movies.test_predict import table_of

ROOT = Path(__file__).resolve().parents[2]
G = len(NAMES)
TINY = {"width": 6, "maxout_units": 5, "epochs": 2, "batch_size": 18, "cycles": 3, "device": "cpu"}
KEPT = {"pmmo-kl-l2": "all", "gmu": "all", "mmo": "best"}
MOVIES = 90
SPLITS = {"train": (0, 36), "dev": (36, 60), "test": (60, MOVIES)}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """movies.hdf5, tensors and a tiny run of each system."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_good(folder / "movies.hdf5", splits=SPLITS, **arrays(MOVIES))
    extract(folder / "movies.hdf5", folder / "tensors", nan_text="zeros", memory_limit_gb=1)
    rows = load_params(ROOT / "params.yaml").rows
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PMMO_WORKERS", "1")
        for name, models in KEPT.items():
            save_settings(replace(rows[name], **TINY, keep_models=models), folder / "settings.json")
            runs.train_row(folder / "settings.json", folder / "tensors", folder / "runs" / name)
    return folder


def chosen(run: Path, folder: Path, **choice: bool) -> Path:
    """A copy of a run that chose otherwise."""
    copy = Path(shutil.copytree(run, folder / "run"))
    decision = read_decision(copy / "decision.json", G)
    write_decision(copy / "decision.json", replace(decision, **choice))
    return copy


CHOICES = [
    pytest.param(name, ensemble, thresholds, calibrated, id=f"{name}-{number}")
    for name, ensemble, number in (
        *(("pmmo-kl-l2", True, 1), ("pmmo-kl-l2", False, 2)),
        *(("gmu", True, 1), ("gmu", False, 2), ("mmo", False, 2)),
    )
    for thresholds, calibrated in ((True, True), (False, False))
]


@pytest.mark.parametrize(("name", "ensemble", "thresholds", "calibrated"), CHOICES)
def test_decisions_by_the_stored_choice_are_those_of_the_report(
    project, tmp_path, name, ensemble, thresholds, calibrated
):
    """Movie by movie and score by score, whatever was chosen; scored by scikit-learn."""
    choice = {"ensemble": ensemble, "thresholds": thresholds, "calibrated": calibrated}
    path, movies = chosen(project / "runs" / name, tmp_path, **choice), project / "movies.hdf5"
    said = predict_file(path, movies, tmp_path / "x.csv", split="test", samples=None, batch_size=7)
    decided = table_of(tmp_path / "x.csv", "decision").astype(bool)
    run, known = read_run(path, name, name), read_movies(project / "tensors")
    switches, _, (reported,) = as_predicted(run)
    np.testing.assert_array_equal(decided, reported)
    assert switches[0] == ("ensemble of 3" if ensemble else "best cycle")
    assert ("thresholds" in switches) == thresholds
    assert ("mean of 3 cycles" in said) == ensemble
    assert ("one threshold per genre" in said) == thresholds
    assert ("are calibrated" in said) == calibrated
    (*others, entry) = report_rows(run, known, resample(30, 100), 0.95)
    assert entry["predict"]
    assert not any(other["predict"] for other in others)
    truth = known.truth("test")
    for average in AVERAGES:
        score = f1_score(truth, decided, average=average, zero_division=0)
        assert entry["test"][average] == pytest.approx(score, abs=5e-7)  # of the files' 6 digits


@pytest.mark.parametrize("ensemble", [False, True])
def test_what_was_chosen_for_one_predictor_is_not_taken_for_the_other(project, tmp_path, ensemble):
    choice = {"ensemble": ensemble, "thresholds": True, "calibrated": True}
    run = chosen(project / "runs" / "gmu", tmp_path, **choice)
    same, other = (pmmo.load(run, ensemble=asked) for asked in (ensemble, not ensemble))
    assert len(same.threshold) == G
    assert same.temperature is not None
    assert (other.threshold, other.temperature) == (0.5, None)
    assert pmmo.load(run, threshold=np.float32(0.25)).threshold == 0.25


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("name", ["pmmo-kl-l2", "gmu"])
def test_the_rows_of_the_report_by_the_evaluated_sets_statistics_are_one_flag_away(
    project, tmp_path, name, ensemble
):
    path = project / "runs" / name
    options_of = {"batch_norm": "evaluation_set", "ensemble": ensemble, "threshold": "per_genre"}
    predict_file(path, project / "movies.hdf5", tmp_path / "x.csv", split="test", **options_of)
    run, known = read_run(path, name, name), read_movies(project / "tensors")
    wanted = {"ensemble of 3", "thresholds"} if ensemble else {"thresholds"}
    ((_, dev, test, tuned),) = [found for found in options(run) if set(found[0]) == wanted]
    _, reported = guesses(known.truth("dev"), dev, test, tuned, run.threshold)
    best = 0 if ensemble else read_decision(path / "decision.json", G).best
    np.testing.assert_array_equal(table_of(tmp_path / "x.csv", "decision"), reported[best])


INSIDE = [(name, norm) for name in KEPT for norm in ("running", "evaluation_set")]


@pytest.mark.parametrize(("name", "batch_norm"), INSIDE)
def test_the_rest_of_the_model_makes_the_predictions_of_z(project, name, batch_norm):
    """Eq. 2 from the weights and the gate in numpy, then module C."""
    text, image = (arrays(MOVIES)[key][60:] for key in ("text", "image"))
    options = {"batch_norm": batch_norm, "calibrated": False, "samples": None}
    model = pmmo.load(project / "runs" / name, ensemble=name == "gmu", **options)
    weights, fused = model.weights(), model.fused(text, image)
    assert fused.z.shape == fused.gate.shape == (len(model.models), 30, TINY["width"])
    found = []
    for number, own in enumerate(model.models):
        system = own.system
        with torch.no_grad(), evaluation_mode(system, batch_norm):
            inputs = system.inputs(torch.from_numpy(text), torch.from_numpy(image))
            rest = torch.sigmoid(system.classifier(torch.from_numpy(fused.z[number])))
        found.append(rest.numpy())
        v_t, v_i = (
            np.tanh(x.numpy() @ weights[f"{k}.weight"][number].T + weights[f"{k}.bias"][number])
            for k, x in zip(("text", "image"), inputs, strict=True)
        )
        gate = fused.gate[number]
        np.testing.assert_allclose(gate * v_i + (1 - gate) * v_t, fused.z[number], atol=1e-5)
    expected = model.predict(text, image).probabilities
    np.testing.assert_allclose(np.mean(found, axis=0), expected, atol=1e-4)


def test_draws_inside_are_those_of_the_predictions(project):
    """The spread over the draws, by module C from z, and z by Eq. 2 from the weights."""
    columns = arrays(MOVIES)
    text, image = columns["text"], columns["image"]
    options = {"ensemble": True, "calibrated": False, "samples": np.int64(4)}
    model = pmmo.load(project / "runs" / "pmmo-kl-l2", **options)
    before = torch.get_rng_state()
    fused, weights = model.fused(text, image, samples=4), model.weights(samples=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert fused.z.shape == fused.gate.shape == (3, 4, MOVIES, TINY["width"])
    assert weights["text.weight"].shape == (3, 4, TINY["width"], text.shape[1])
    found = []
    for number, own in enumerate(model.models):
        z = torch.from_numpy(fused.z[number])
        with torch.no_grad():
            found += [torch.sigmoid(own.system.classifier(drawn)).numpy() for drawn in z]
            inputs = own.system.inputs(torch.from_numpy(text), torch.from_numpy(image))
        last = {name: torch.from_numpy(values[number, 3]) for name, values in weights.items()}
        torch.testing.assert_close(fuse(last, *inputs, "outputs").z, z[3])
    np.testing.assert_allclose(
        np.std(found, axis=0, ddof=1), model.predict(text, image).sd, rtol=1e-3, atol=1e-6
    )
    mean = model.weights()["gate.bias"]  # (C, H)
    assert np.abs(weights["gate.bias"] - mean[:, None]).max() > 0
    own_mean = model.models[1].system.fusion.guide.mean()["gate.bias"]
    np.testing.assert_array_equal(mean[1], own_mean.detach().numpy())


def test_a_system_without_a_posterior_has_no_draws_inside(project):
    model = pmmo.load(project / "runs" / "mmo")
    with pytest.raises(PmmoError, match=r"samples is 3: the system 'mmo' has no posterior to draw"):
        model.weights(samples=3)
    with pytest.raises(PmmoError, match="samples is -1; allowed: a whole number >= 0"):
        model.fused(np.zeros((2, 8)), np.zeros((2, 16)), samples=-1)
    with pytest.raises(PmmoError, match=r"text has the shape \(2, 7\)"):
        model.fused(np.zeros((2, 7)), np.zeros((2, 16)))


def test_the_ensemble_is_the_mean_of_the_cycles_and_sd_that_of_all_draws(project):
    text, image = (arrays(MOVIES)[name][60:] for name in ("text", "image"))
    run = project / "runs" / "gmu"
    found = pmmo.load(run, ensemble=True, calibrated=False).predict(text, image)
    stored = [load_file(run / f"predictions-{k}.safetensors")["test_running"] for k in range(3)]
    np.testing.assert_allclose(found.probabilities, torch.stack(stored).mean(0), atol=1e-6)
    np.testing.assert_allclose(found.sd, torch.stack(stored).std(0), atol=1e-6)
    run = project / "runs" / "pmmo-kl-l2"
    models = [
        pmmo.load(chosen_cycle(run, k), ensemble=False, calibrated=False, samples=40)
        for k in range(3)
    ]
    each = [model.predict(text, image) for model in models]
    both = pmmo.load(run, ensemble=True, calibrated=False, samples=40).predict(text, image)
    within = np.mean([one.sd**2 for one in each], axis=0)
    between = np.var([one.probabilities for one in each], axis=0)
    np.testing.assert_allclose(both.sd**2, within + between, rtol=0.3, atol=1e-4)


def chosen_cycle(run: Path, cycle: int) -> Path:
    """A folder with one cycle's model alone, as the best one."""
    folder = run.parent / f"{run.name}-only-{cycle}"
    if not folder.exists():
        folder.mkdir()
        decision = read_decision(run / "decision.json", G)
        name = "model" if cycle == decision.best else f"model-{cycle}"
        shutil.copy(run / f"{name}.safetensors", folder / "model.safetensors")
        card = json.loads((run / "model.json").read_text()) | {"cycle": cycle}
        (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_from_python_and_by_the_command_the_same_genres(project, tmp_path):
    run, columns = project / "runs" / "pmmo-kl-l2", arrays(MOVIES)
    predict_file(run, project / "movies.hdf5", tmp_path / "x.csv")
    model = pmmo.load(str(run))
    assert model.genres == NAMES
    text, image = columns["text"], columns["image"]
    found = model.predict(text, image)
    assert found.genres == NAMES
    assert found.decisions.shape == found.probabilities.shape == found.sd.shape == (MOVIES, G)
    np.testing.assert_array_equal(found.decisions, table_of(tmp_path / "x.csv", "decision"))
    for name, own in (("probability", found.probabilities), ("sd", found.sd)):
        np.testing.assert_allclose(own, table_of(tmp_path / "x.csv", name), rtol=1e-4)
    pairs = ((torch.from_numpy(text), torch.from_numpy(image)), (text.tolist(), image.tolist()))
    for own_text, own_image in pairs:
        again = model.predict(own_text, own_image, batch_size=40)
        np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-6)
        np.testing.assert_array_equal(again.decisions, found.decisions)
    alone = model.predict(text[5:6], image[5:6])
    np.testing.assert_allclose(alone.probabilities[0], found.probabilities[5], atol=1e-6)


def test_thresholds_and_temperature_are_those_that_were_stored(project):
    run, columns = project / "runs" / "gmu", arrays(MOVIES)
    text, image = columns["text"], columns["image"]
    fitted = read_decision(run / "decision.json", G).fitted["running"]["single"]
    plain = pmmo.load(run, ensemble=False, threshold=0.5, calibrated=False).predict(text, image)
    shown = pmmo.load(run, ensemble=False, threshold="per_genre", calibrated=True)
    found = shown.predict(text, image)
    np.testing.assert_allclose(
        found.probabilities, calibrate(plain.probabilities, fitted.temperature)
    )
    np.testing.assert_array_equal(found.decisions, plain.probabilities > fitted.thresholds)
    at = pmmo.load(run, ensemble=False, threshold=0.4, calibrated=True).predict(text, image)
    np.testing.assert_array_equal(at.decisions, at.probabilities > 0.4)


def test_unsure_is_what_the_likeliest_genre_leaves_and_the_least_sure_movies_come_first(
    project, tmp_path
):
    run, movies = project / "runs" / "gmu", project / "movies.hdf5"
    said = [
        predict_file(run, movies, tmp_path / order, order=order, ensemble=True, batch_size=40)
        for order in ("file", "unsure")
    ]
    assert said[0].partition(":")[2] == said[1].partition(":")[2]
    lines = [(tmp_path / order).read_text().splitlines() for order in ("file", "unsure")]
    assert lines[0][0] == lines[1][0]
    assert sorted(lines[0]) == sorted(lines[1])
    p, unsure = (table_of(tmp_path / "unsure", name) for name in ("probability", "unsure"))
    for k in range(G):
        np.testing.assert_allclose(unsure[:, k], 1 - p.max(axis=1), atol=1e-5)
    assert (np.diff(unsure[:, 0]) <= 0).all()
    in_file = table_of(tmp_path / "file", "unsure")[:, 0]
    assert not (np.diff(in_file) <= 0).all()


def test_intervals_are_percentiles_of_the_models(project):
    text, image = (arrays(MOVIES)[name][60:] for name in ("text", "image"))
    run = project / "runs" / "gmu"
    found = pmmo.load(run, ensemble=True, calibrated=False, threshold=0.5).predict(text, image)
    each = np.stack(
        [load_file(run / f"predictions-{k}.safetensors")["test_running"].numpy() for k in range(3)]
    )
    low, high = np.percentile(each, [5, 95], axis=0)
    np.testing.assert_allclose(found.low, low, atol=1e-6)
    np.testing.assert_allclose(found.high, high, atol=1e-6)
    counts = (each > 0.5).sum(axis=2)  # of three models the lowest and the highest
    np.testing.assert_array_equal(found.fewest, counts.min(axis=0))
    np.testing.assert_array_equal(found.most, counts.max(axis=0))
    alone = pmmo.load(run, ensemble=False).predict(text, image)
    assert [getattr(alone, name) for name in ("sd", "low", "high", "fewest", "most")] == [None] * 5


def test_movies_far_from_training_are_flagged(project, tmp_path):
    run, columns = project / "runs" / "mmo", arrays(MOVIES)
    text, image = columns["text"], columns["image"]
    model = pmmo.load(run)
    known = model.predict(text, image).far
    assert known[36:60].sum() == 1  # of 24 movies of dev one is beyond their 99th percentile
    text[3] *= 50
    image[80] += 9
    found = model.predict(text, image).far
    assert found[[3, 80]].all()
    assert (np.delete(found, [3, 80]) == np.delete(known, [3, 80])).all()
    write_good(tmp_path / "far.hdf5", splits=SPLITS, **columns)
    said = predict_file(run, tmp_path / "far.hdf5", tmp_path / "x.csv")
    assert f"Movies far from those of training: {found.sum()}." in said
    np.testing.assert_array_equal(table_of(tmp_path / "x.csv", "far")[:, 0], found)
    copy = chosen(run, tmp_path)
    (copy / "far.safetensors").unlink()
    assert pmmo.load(copy).predict(text, image).far is None


def test_movies_without_text_are_zeros(project):
    model, columns = pmmo.load(project / "runs" / "mmo"), arrays(5)
    text, image = columns["text"], columns["image"]
    text[2] = np.nan
    found = model.predict(text, image)
    text[2] = 0
    np.testing.assert_array_equal(model.predict(text, image).probabilities, found.probabilities)
    assert found.sd is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x | {"text": x["text"][:, :3]}, r"text has the shape \(5, 3\); expected \(m"),
        (lambda x: x | {"image": x["image"][0]}, r"image has the shape \(16,\)"),
        (lambda x: x | {"image": x["image"][:4]}, "text has 5 movies, image 4"),
        (lambda x: x | {"text": [["a"] * 8] * 5}, "text is no array of numbers"),
        (lambda x: x | {"text": x["text"][:0], "image": x["image"][:0]}, "text has the shape"),
        (lambda x: x | {"image": x["image"] * 1e30}, "image, row 0, column 0: .* no number that"),
        (lambda x: x | {"text": put_nan(x["text"])}, "text, row 3, column 1: nan is no number"),
    ],
)
def test_arrays_that_are_no_movies_are_refused(project, change, words):
    given = change({name: arrays(5)[name] for name in ("text", "image")})
    with pytest.raises(PmmoError, match=words):
        pmmo.load(project / "runs" / "mmo").predict(**given)


def put_nan(text: np.ndarray) -> np.ndarray:
    text[3, 1] = np.nan
    return text


def test_what_a_run_has_not_kept_is_refused(project, tmp_path):
    gmu, mmo = project / "runs" / "gmu", project / "runs" / "mmo"
    with pytest.raises(PmmoError, match=r"mmo: holds the best cycle's model alone.*--single"):
        pmmo.load(mmo, ensemble=True)
    for name in ("model.safetensors", "model.json"):
        shutil.copy(gmu / name, tmp_path)
    assert pmmo.load(tmp_path).threshold == 0.5  # these two are enough
    for wish in ({"threshold": "per_genre"}, {"calibrated": True}):
        with pytest.raises(PmmoError, match=r"decision.json: has no thresholds and no temperature"):
            pmmo.load(tmp_path, **wish)
    decision = read_decision(gmu / "decision.json", G)
    write_decision(tmp_path / "decision.json", replace(decision, ensemble=True))
    with pytest.raises(PmmoError, match=r"model-\d.safetensors: there is no such file.*--single"):
        pmmo.load(tmp_path)
    assert len(pmmo.load(tmp_path, ensemble=False).models) == 1
    for value in (0.0, 1.0, "some", 3):
        with pytest.raises(PmmoError, match=r"threshold is .*; allowed: a number between"):
            pmmo.load(gmu, threshold=value)
    with pytest.raises(PmmoError, match=r"batch_norm is 'own'; allowed: running or"):
        pmmo.load(gmu, batch_norm="own")
    with pytest.raises(PmmoError, match=r"one movie has no statistics of its own"):
        pmmo.load(gmu, batch_norm="evaluation_set").predict(np.zeros((1, 8)), np.zeros((1, 16)))


def test_models_and_decisions_of_other_runs_are_refused(project, tmp_path):
    run = chosen(project / "runs" / "gmu", tmp_path, ensemble=True)
    (other,) = sorted(run.glob("model-*.safetensors"))[:1]
    state = load_file(other)
    state["fusion.gate.bias"] = torch.zeros(7)
    save_file(state, other)
    with pytest.raises(PmmoError, match=rf"{other.name}: does not fit model.json .*\(7,\)"):
        pmmo.load(run)
    other.write_bytes(b"none")
    with pytest.raises(PmmoError, match=rf"{other.name}: is no safetensors file"):
        pmmo.load(run)
    card = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(card | {"cycle": 7}))
    with pytest.raises(PmmoError, match=r"decision.json: .*its best cycle is \d, that of model.j"):
        pmmo.load(run)


def test_a_model_without_finite_probabilities_names_the_row(project, tmp_path):
    run = chosen(project / "runs" / "mmo", tmp_path)
    state = load_file(run / "model.safetensors")
    for name, values in state.items():
        if "running_var" in name:
            values.fill_(-9)
    save_file(state, run / "model.safetensors")
    columns = arrays(5)
    with pytest.raises(PmmoError, match="row 0: the model gives no finite probability"):
        pmmo.load(run).predict(columns["text"], columns["image"])


def test_few_movies_by_their_own_statistics_are_warned_of(project, tmp_path, capsys):
    predict_file(
        project / "runs" / "gmu",
        project / "movies.hdf5",
        tmp_path / "x.csv",
        batch_norm="evaluation_set",
    )
    assert f"movies.hdf5: {MOVIES} movies are few to normalise by" in capsys.readouterr().err
    predict_file(project / "runs" / "gmu", project / "movies.hdf5", tmp_path / "x.csv")
    assert "few" not in capsys.readouterr().err


def test_one_file_of_the_best_model_and_one_of_each_other(project):
    for name, models in KEPT.items():
        found = {path.name for path in (project / "runs" / name).glob("model*.safetensors")}
        assert len(found) == (3 if models == "all" else 1)
        assert "model.safetensors" in found
        best = json.loads((project / "runs" / name / "model.json").read_text())["cycle"]
        assert f"model-{best}.safetensors" not in found


def test_pmmo_is_light_until_a_model_is_loaded():
    code = "import sys, pmmo; assert not {'torch', 'numpy'} & set(sys.modules); pmmo.load"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_command_has_the_options(project, tmp_path, capsys):
    def options(*words: str) -> dict:
        return vars(make_parser().parse_args(["predict", "run", "x.hdf5", *words]))

    names = ("ensemble", "threshold", "calibrated", "batch_norm")
    found = [
        tuple(options(*words)[name] for name in names)
        for words in (
            [],
            ["--ensemble", "--thresholds", "--calibrated"],
            ["--single", "--threshold", "0.3", "--uncalibrated", "--batch-norm", "evaluation_set"],
        )
    ]
    assert found == [
        (None, None, None, "running"),
        (True, "per_genre", True, "running"),
        (False, 0.3, False, "evaluation_set"),
    ]
    for words in (["--ensemble", "--single"], ["--threshold", "1.5"], ["--threshold", "nan"]):
        with pytest.raises(SystemExit):
            options(*words)
    assert "'1.5' is not a number between 0 and 1" in capsys.readouterr().err
    some = options("--ensemble", "--threshold", "0.3", "--output", str(tmp_path / "x.csv"))
    some |= {"model": project / "runs/gmu", "movies": project / "movies.hdf5"}
    run = some.pop("run")
    del some["command"]
    assert "mean of 3 cycles), decided at 0.3." in run(**some)
