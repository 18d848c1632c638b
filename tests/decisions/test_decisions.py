"""Thresholds, temperature and the choice on dev, against scikit-learn, scipy and plain loops."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import f1_score, log_loss

from pmmo.core.errors import PmmoError
from pmmo.decisions.stored import Decision, read_decision, values_name, write_decision
from pmmo.decisions.temperature import (
    HIGHEST,
    LOWEST,
    calibrate,
    cross_fitted,
    fit_temperature,
    nll,
)
from pmmo.decisions.thresholds import GRID, folds, tune
from pmmo.training.decision import decide_on_dev, kept

G = 3


def forecasts(movies: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N, G) and probabilities whose logits are `scale` times the right ones."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 2, (movies, G))
    truth = (random.random((movies, G)) < expit(z)).astype(np.uint8)
    return truth, expit(z * scale).clip(1e-5, 1 - 1e-5).astype(np.float32)


@settings(deadline=None, max_examples=12)
@given(movies=st.integers(2, 60), seed=st.integers(0, 10**6), scale=st.floats(0.2, 5))
def test_the_temperature_is_that_of_the_smallest_log_loss(movies, seed, scale):
    truth, p = forecasts(movies, seed, scale)

    def loss(log_temperature: float) -> float:
        forecast = expit(logit(p.astype(float)) / np.exp(log_temperature))
        return log_loss(truth.ravel(), forecast.ravel(), labels=[0, 1])

    best = minimize_scalar(loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded")
    found = fit_temperature(truth, p)
    assert LOWEST <= found <= HIGHEST
    assert loss(np.log(found)) <= best.fun + 1e-9
    assert nll(truth, calibrate(p, found)) == pytest.approx(loss(np.log(found)), abs=1e-6)


def test_a_temperature_undoes_too_much_confidence_and_keeps_order_and_one_half():
    truth, p = forecasts(20_000, 0, scale=3)
    assert fit_temperature(truth, p) == pytest.approx(3, rel=0.05)
    cooled = calibrate(p, 3)
    assert (np.diff(cooled.ravel()[np.argsort(p.ravel())]) >= 0).all()
    assert calibrate(np.array([0.5]), 3) == 0.5
    assert np.isfinite(calibrate(np.array([0.0, 1.0], np.float32), 3)).all()


def test_forecasts_that_are_always_right_or_always_wrong_have_a_temperature_at_a_bound():
    truth = np.array([[0, 1], [1, 0]], np.uint8)
    assert fit_temperature(truth, np.where(truth, 0.6, 0.4)) == LOWEST
    assert fit_temperature(truth, np.where(truth, 0.4, 0.6)) == HIGHEST


def test_a_movie_is_calibrated_by_a_temperature_that_it_had_no_part_in():
    truth, p = forecasts(40, 3, scale=2)
    found = cross_fitted(truth, p)
    for part in folds(40):
        others = fit_temperature(truth[~part], p[~part])
        np.testing.assert_array_equal(found[part], calibrate(p[part], others))


# ---- the choice


def cycles(movies: int = 80, count: int = 3, scale: float = 1.0) -> tuple[np.ndarray, list]:
    """Labels of dev and trained cycles, of which each has noise of its own."""
    truth, p = forecasts(movies, 1)
    found = []
    for cycle in range(count):
        noise = np.random.default_rng(cycle).normal(0, 1.5, p.shape)
        own = expit((logit(p) + noise) * scale).astype(np.float32)
        predictions = {"dev": torch.from_numpy(own), "dev_running": torch.from_numpy(own**2)}
        found.append(SimpleNamespace(summary={"cycle": cycle}, predictions=predictions))
    return truth, found


PLAIN = SimpleNamespace(
    threshold=0.5,
    batch_norm=True,
    batch_norm_eval="evaluation_set",
    keep_models="all",
    train_on="train",
)


def f1(truth: np.ndarray, decided: np.ndarray) -> float:
    return 2 * (truth & decided).sum() / (truth.sum() + decided.sum())


def weighted(truth: np.ndarray, decided: np.ndarray) -> float:
    return f1_score(truth, decided, average="weighted", zero_division=0)


@pytest.mark.parametrize("count", [1, 3])
def test_the_decision_is_what_scikit_learn_finds_best_on_dev(count):
    truth, trained = cycles(count=count)
    found = decide_on_dev(PLAIN, trained, trained[-1], truth)
    options = {}
    for statistics, key in (("running", "dev_running"), ("evaluation_set", "dev")):
        parts = np.stack([cycle.predictions[key].numpy() for cycle in trained])
        predictors = {"single": parts[-1]} | ({"ensemble": parts.mean(0)} if count > 1 else {})
        assert found.fitted[statistics].keys() == predictors.keys()
        for name, p in predictors.items():
            fitted = found.fitted[statistics][name]
            assert fitted.f1 == pytest.approx(weighted(truth, p > 0.5))
            thresholds, guesses = tune(truth, p, 0.5)
            assert fitted.f1_thresholds == pytest.approx(weighted(truth, guesses))
            assert fitted.thresholds == tuple(thresholds)
            for genre in range(G):  # a plain loop: no threshold of the grid is better
                scores = [f1(truth[:, genre], p[:, genre] > t) for t in GRID]
                assert f1(truth[:, genre], p[:, genre] > thresholds[genre]) == max(scores)
            assert fitted.nll == pytest.approx(log_loss(truth.ravel(), p.ravel()), abs=1e-6)
            if statistics == "running":
                options |= {(name, False): fitted.f1, (name, True): fitted.f1_thresholds}
    best = max(options, key=options.get)
    assert (("ensemble" if found.ensemble else "single"), found.thresholds) == best
    chosen = found.fitted["running"][best[0]]
    assert found.calibrated == (chosen.nll_calibrated < chosen.nll)
    assert (found.best, found.cycles) == (count - 1, tuple(range(count)))


def test_probabilities_that_are_right_stay_as_they_are():
    """Fitting a temperature to them can only add noise, and cross-fitting shows it."""
    truth, p = forecasts(30, 16)
    one = SimpleNamespace(summary={"cycle": 0}, predictions={"dev": torch.from_numpy(p)})
    plain = SimpleNamespace(threshold=0.5, batch_norm=False, train_on="train")
    found = [decide_on_dev(plain, [one], one, truth)]
    truth, p = forecasts(300, 2, scale=3)
    one = SimpleNamespace(summary={"cycle": 0}, predictions={"dev": torch.from_numpy(p)})
    found.append(decide_on_dev(plain, [one], one, truth))
    truth = np.array([[0, 1], [1, 0]], np.uint8)  # all right: no temperature is cold enough
    right = {"dev": torch.where(torch.from_numpy(truth) > 0, 0.6, 0.4)}
    one = SimpleNamespace(summary={"cycle": 0}, predictions=right)
    found.append(decide_on_dev(plain, [one], one, truth))
    assert [decision.calibrated for decision in found] == [False, True, False]
    assert {tuple(decision.fitted) for decision in found} == {("running",)}


def test_movies_that_were_trained_on_choose_nothing():
    truth, trained = cycles(scale=3)
    found = decide_on_dev(PLAIN, trained, trained[0], truth)
    assert found.ensemble or found.thresholds
    known = SimpleNamespace(**{**vars(PLAIN), "train_on": "train+dev"})
    found = decide_on_dev(known, trained, trained[0], truth)
    assert (found.ensemble, found.thresholds, found.calibrated) == (False, False, False)


def test_best_keeps_the_best_cycle_and_all_keeps_all():
    _, trained = cycles()
    assert kept(PLAIN, trained, trained[1]) == trained
    one = SimpleNamespace(keep_models="best")
    assert kept(one, trained, trained[1]) == [trained[1]]


# ---- the file


@pytest.fixture
def decision() -> Decision:
    truth, trained = cycles()
    return decide_on_dev(PLAIN, trained, trained[1], truth)


def test_a_decision_is_read_as_it_was_written(tmp_path, decision):
    write_decision(tmp_path / "decision.json", decision)
    assert read_decision(tmp_path / "decision.json", G) == decision
    assert [values_name(cycle, decision) for cycle in decision.cycles] == [
        *("model-0.safetensors", "model.safetensors", "model-2.safetensors")
    ]


def without(*path):
    def change(tree: dict) -> None:
        for key in path[:-1]:
            tree = tree[key]
        del tree[path[-1]]

    return change


def given_as(value, *path):
    def change(tree: dict) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


SINGLE = ("fitted", "running", "single")
HARM = {
    "no thresholds": (without(*SINGLE, "thresholds"), "thresholds"),
    "a genre less": (given_as([0.5, 0.5], *SINGLE, "thresholds"), "not 3 numbers, one per genre"),
    "a text": (given_as("0.5", *SINGLE, "thresholds"), "not 3 numbers"),
    "beyond": (given_as([0.5, 1.5, 0.5], *SINGLE, "thresholds"), "not between 0 and 1"),
    "true": (given_as([0.5, True, 0.5], *SINGLE, "thresholds"), "not between 0 and 1"),
    "cold": (given_as(0, *SINGLE, "temperature"), "temperature is no number above 0"),
    "hot": (given_as(10**400, *SINGLE, "temperature"), "temperature"),
    "NaN": (given_as(float("nan"), *SINGLE, "f1"), "f1 is no number from 0 to 1"),
    "endless": (given_as(float("inf"), *SINGLE, "nll"), "nll is no number from 0 to 20"),
    "unknown": (given_as(1, *SINGLE, "colour"), "colour"),
    "no running": (without("fitted", "running"), "predictors are not those"),
    "no ensemble": (without("fitted", "running", "ensemble"), "predictors are not those"),
    "statistics": (given_as({}, "fitted", "x\x1b[2J" * 30), "is none of running, evaluation_set"),
    "predictor": (given_as({}, "fitted", "running", "both"), "is none of single, ensemble"),
    "many": (given_as(list(range(5000)), "cycles"), "not numbers below 1000"),
    "huge": (given_as([0, 1, 10**30], "cycles"), "not numbers below 1000"),
    "a path": (given_as([0, 1, "../../x"], "cycles"), "not numbers below 1000"),
    "twice": (given_as([0, 1, 1], "cycles"), "there twice"),
    "best": (given_as(7, "best"), "the best one is not"),
    "word": (given_as("yes", "ensemble"), "not true or false"),
    "cycles none": (given_as(None, "cycles"), "describe a decision"),
    "a list": (lambda tree: tree.clear(), "fitted"),
}


@pytest.mark.parametrize("kind", HARM)
def test_a_harmed_decision_is_refused_in_a_sentence(tmp_path, decision, kind):
    change, words = HARM[kind]
    tree = json.loads(json.dumps(asdict(decision)))
    change(tree)
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(PmmoError) as caught:
        read_decision(path, G)
    message = str(caught.value)
    assert message.startswith(f"{path}: does not describe a decision (")
    assert words in message
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 10**6, "\xff", " " * (17 << 20)])
def test_what_is_no_decision_at_all_is_refused(tmp_path, text):
    (tmp_path / "decision.json").write_text(text, encoding="latin-1")
    with pytest.raises(PmmoError, match="does not describe a decision"):
        read_decision(tmp_path / "decision.json", G)


def test_an_ensemble_of_one_is_refused(tmp_path, decision):
    one = {name: {"single": own["single"]} for name, own in decision.fitted.items()}
    odd = replace(decision, cycles=(1,), ensemble=True, fitted=one)
    write_decision(tmp_path / "decision.json", odd)
    with pytest.raises(PmmoError, match="an ensemble of one"):
        read_decision(tmp_path / "decision.json", G)
