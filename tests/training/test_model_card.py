"""The model card: its numbers, its YAML for hubs, foreign names, and the code that it shows."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from scipy import stats

from pmmo.config.settings import save_settings
from pmmo.core.names import AVERAGES
from pmmo.decisions.stored import Decision, Fitted
from pmmo.own_movies.saved_model import load_model
from pmmo.training.model_card import interval, model_card
from pmmo.training.variant import train_row
from tests.training.test_training import SIZES, row, write_data

ROWS = {"train": 1558, "dev": 261, "test": 781}
GENRES = ("Drama", "Comedy", "War")
SYNTHETIC = {"kind": "synthetic", "source": "synthetic"}


def movies(provenance=SYNTHETIC, genres=GENRES):
    text, image = torch.empty(1, 300), torch.empty(1, 4096)
    return SimpleNamespace(text=text, image=image, genre_names=genres, provenance=provenance)


def cycle(number: int, score: float) -> dict:
    scores = {average: score + place / 10 for place, average in enumerate(AVERAGES)}
    return {
        "cycle": number,
        "seed": 7 + number,
        "best_epoch": 3,
        "dev": scores,
        "test": scores,
        "dev_per_genre": [0.5, 0.5, 0.5],
        "test_per_genre": [0.5, 0.0, 0.25],
    }


CYCLES = [cycle(0, 0.1), cycle(1, 0.25), cycle(2, 0.2)]


FITTED = Fitted((0.2, 0.5, 0.4), 1.5, f1=0.41, f1_thresholds=0.42, nll=0.3, nll_calibrated=0.28)
ENSEMBLE = replace(FITTED, f1=0.43, f1_thresholds=0.44)
SET = replace(FITTED, f1=0.45)
BOTH = {"running": {"single": FITTED, "ensemble": ENSEMBLE}}
BOTH |= {"evaluation_set": {"single": SET, "ensemble": SET}}
ALL = Decision(1, (0, 1, 2), ensemble=True, thresholds=True, calibrated=True, fitted=BOTH)


def card(settings=None, data=None, cycles=CYCLES, decision=ALL) -> tuple[dict, str]:
    """The YAML, read, and the Markdown."""
    best = max(cycles, key=lambda c: c["dev"]["weighted"])
    text = model_card(settings or row("pmmo"), ROWS, cycles, best, data or movies(), decision)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def cells(body: str, start: str) -> list[str]:
    (line,) = [line for line in body.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_scores_are_those_of_the_model_and_the_means_of_the_row():
    front, body = card()
    ours = [0.25, 0.35, 0.45, 0.55]
    (result,) = front["model-index"][0]["results"]
    assert [m["value"] for m in result["metrics"]] == pytest.approx(ours)
    assert [m["name"] for m in result["metrics"]] == [f"F1 ({a})" for a in AVERAGES]
    for line in ("this model, dev", "this model, test"):
        assert [float(cell) for cell in cells(body, line)] == pytest.approx(ours)
    assert cells(body, "mean over cycles (3) with 95% interval, test")[0] == interval(
        [0.1, 0.25, 0.2]
    )
    assert "cycle 1 (seed 8), after epoch 3" in body
    assert "train 1,558, dev 261, test 781" in body


@pytest.mark.parametrize("scores", [[0.1, 0.25, 0.2], [0.5, 0.6], [0.31, 0.33, 0.3, 0.4, 0.35]])
def test_the_interval_is_students(scores):
    mean, reach = map(float, interval(scores).split(" ± "))
    bounds = stats.t.interval(0.95, len(scores) - 1, stats.tmean(scores), stats.sem(scores))
    assert (mean - reach, mean + reach) == pytest.approx(bounds, abs=1.1e-3)


def test_one_cycle_has_no_interval():
    _, body = card(cycles=[cycle(0, 0.1)])
    assert cells(body, "mean over cycles (1)") == ["0.100", "0.200", "0.300", "0.400"]


def test_synthetic_movies_are_called_so_and_a_users_movies_by_their_file():
    front, body = card()
    assert "**Synthetic movies, not MM-IMDb**" in body
    assert "say nothing about real ones" in body
    assert front["license"] == "mit"
    front, body = card(data=movies({"kind": "file", "source": "my_movies.hdf5"}))
    assert "ynthetic" not in body
    assert "my_movies.hdf5: train" in body
    assert front["license"] == "unknown"
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "my_movies.hdf5"


def test_limits_are_those_of_the_model():
    _, body = card()
    assert "finds no movie of these genres: Comedy." in body


def test_what_predict_does_by_default_is_said_with_its_scores_on_dev():
    _, body = card()
    words = " ".join(body.split())
    assert "by the mean of 3 cycles at a threshold per genre" in words
    assert "(weighted F1 0.440, with cross-fitted thresholds). Its probabilities are cal" in words
    assert "a weighted F1 of 0.450 so, and 0.410 by default" in words
    assert "`model-*.safetensors` the other models" in words
    one = {"running": {"single": FITTED}}
    _, body = card(decision=Decision(1, (1,), False, False, False, one))
    words = " ".join(body.split())
    assert "by this model at 0.5" in words
    assert "(weighted F1 0.410). Its probabilities are not calibrated" in words
    assert "are not calibrated" in words
    assert "company" not in words
    assert "model-*" not in words


def test_foreign_names_can_break_neither_yaml_nor_markdown():
    label = 'x|y: "z"\n---\nlicense: other\n# <b>bold</b> {row} `code`'
    genres = ("*War*\n\n# Title", "a: b - [c](http://d)", "---")
    source = "f\n---\n- {}: <script>.hdf5"
    data = movies({"kind": "file\nx: y", "source": source}, genres)
    front, body = card(replace(row("pmmo"), label=label), data)
    assert front["license"] == "unknown"
    assert set(front) == {"library_name", "license", "tags", "metrics", "model-index"}
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        r'# x\|y: "z" --- license: other # \<b\>bold\</b\> {row} \`code\`',
        *("## Data", "## Scores", "## Limits", "## Use"),
    ]
    assert r"\*War\* # Title, a: b - \[c\](http://d), ---." in body
    assert r"f --- - {}: \<script\>.hdf5: train" in body
    assert not re.search(r"(?<!\\)<", body)


def test_many_genres_are_counted_and_not_all_listed():
    names = tuple(f"g{number}" for number in range(150))
    cycles = [cycle(0, 0.1) | {"test_per_genre": [0.0] * 150}]
    _, body = card(data=movies(genres=names), cycles=cycles)
    assert "(150): g0, " in body
    assert "g99 and 50 more." in body
    assert "g100" not in body


def test_a_trained_row_has_its_card_whose_code_loads_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")
    write_data(tmp_path / "data")
    save_settings(row("gmu"), tmp_path / "settings.json")
    precision = torch.get_float32_matmul_precision()
    summary = train_row(tmp_path / "settings.json", tmp_path / "data", tmp_path / "MODEL")
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)
    text = (tmp_path / "MODEL/README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    scores = [cycle["test"]["weighted"] for cycle in summary["cycles"]]
    values = {m["name"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert values["F1 (weighted)"] in [pytest.approx(score, abs=1e-6) for score in scores]
    assert cells(text, "mean over cycles (2)")[2] == interval(scores)
    assert f"train {SIZES['train']}, dev {SIZES['dev']}, test {SIZES['test']}" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict = {}
    exec(code, names)
    assert names["model"].genres == load_model(Path("MODEL"), torch.device("cpu")).genres
