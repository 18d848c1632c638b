"""Data with which scores are odd: one genre, or movies without any. Reports, or one sentence."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch import from_numpy

from pmmo.analysis.calibration import measures, reliability
from pmmo.analysis.claims import UNTRAINED
from pmmo.analysis.intervals import UNDECIDED
from pmmo.analysis.metrics import f1_per_genre, f1_scores
from pmmo.training.evaluation import genre_scores, scores
from stages import aggregate, report
from tests.fake_runs import OTHER_ROWS, write_all, write_settings

ROWS = [
    ("pmmo-kl-l2", "PM+MO"),
    ("gmu", "GMU"),
    ("mmo", "M+MO"),
    *((name, OTHER_ROWS[name]) for name in ("gmu-unregularised",)),
]


@pytest.mark.parametrize("genres", [1, 2, 5])
@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_reports_score_as_training_does(genres, rate):
    rng = np.random.default_rng(genres)
    truth = (rng.random((40, genres)) < rate).astype(np.uint8)
    forecast = rng.random((40, genres)).astype(np.float32)
    ours = f1_scores(truth, forecast > 0.5)
    theirs = scores(from_numpy(forecast), from_numpy(truth), 0.5)
    assert ours == pytest.approx(theirs)
    by_genre = genre_scores(from_numpy(forecast), from_numpy(truth), 0.5)
    assert f1_per_genre(truth, forecast > 0.5) == pytest.approx(by_genre)


@pytest.mark.parametrize("label", [0, 1])
def test_calibration_where_all_pairs_have_one_label(label):
    truth, forecast = np.full((10, 2), label), np.full((10, 2), 0.2)
    found = measures(truth, forecast)
    assert found["nll"] == pytest.approx(-np.log(0.2 if label else 0.8))
    assert found["brier"] == pytest.approx((label - 0.2) ** 2)
    assert found["ece"] == pytest.approx(abs(label - 0.2))
    assert reliability(truth, forecast).observed.tolist() == [label]


def relabel(root, change) -> None:
    """Other labels, and the scores that the stored predictions have with them."""
    tensors = root / "data/tensors"
    facts = json.loads((tensors / "movies.json").read_text())
    labels = load_file(tensors / "genres.safetensors")["genres"]
    change(labels, facts["splits"])
    save_file({"genres": labels}, tensors / "genres.safetensors")
    for folder in (root / "runs/rows").iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        for cycle in summary["cycles"]:
            stored = load_file(folder / f"predictions-{cycle['cycle']}.safetensors")
            for split in ("dev", "test"):
                truth, guess = labels[slice(*facts["splits"][split])], stored[split] > 0.5
                cycle[split] = f1_scores(truth, guess)
                cycle[f"{split}_per_genre"] = f1_per_genre(truth, guess)
        (folder / "summary.json").write_text(json.dumps(summary))


def no_test_labels(labels, splits) -> None:
    labels[slice(*splits["test"])] = 0


def no_labels(labels, splits) -> None:
    labels[:] = 0


def every_label(labels, splits) -> None:
    labels[:] = 1


ONE, TWO = {"Drama": 13_000}, {"Drama": 13_000, "Western": 700}


@pytest.mark.parametrize(
    ("change", "genres", "cycles"),
    [
        (no_test_labels, TWO, 2),
        (no_labels, ONE, 1),
        (every_label, ONE, 2),
        pytest.param(no_test_labels, ONE, 1, marks=pytest.mark.long),
        pytest.param(every_label, TWO, 1, marks=pytest.mark.long),
    ],
)
def test_reports_come_out(tmp_path, change, genres, cycles):
    write_all(tmp_path, movies=60, cycles=cycles, epochs=6, variants=ROWS, genres=genres)
    relabel(tmp_path, change)
    write_settings(tmp_path, ROWS)
    aggregate.main(tmp_path)
    report.main(tmp_path)
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    if change is not every_label:
        assert set(metrics["gmu"].values()) == {0.0}
        claim = json.loads((tmp_path / "reports/claims.json").read_text())["pmmo-beats-gmu"]
        assert claim["ours"] == 0
        assert claim["verdict"] in (UNDECIDED, UNTRAINED)
