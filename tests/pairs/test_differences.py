"""Two runs compared: their differences against the claims' interval, and every reason not to."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.metrics import f1_score

from pmmo.analysis.comparisons import Evidence
from pmmo.analysis.intervals import Interval, two_way
from pmmo.analysis.run_reader import read_movies, read_run
from pmmo.core.errors import PmmoError
from pmmo.core.names import AVERAGES
from pmmo.pairs.differences import Side, compare, obstacle, verdict
from pmmo.pairs.words import frame, in_words
from stages import comparison
from tests.fake_runs import read, write_all, write_settings

ROWS = [("gmu", "GMU"), ("gmu-wide", "GMU, wide"), ("pmmo-kl-l2", "PM+MO")]
CHANCE = {"level": 0.95, "draws": 200, "seed": 0}
HOW = CHANCE | {"margin": 0.005}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_all(root, movies=500, variants=ROWS)
    return root


def side(root, name="gmu", called=None) -> Side:
    run = read_run(root / "runs/rows" / name, name, name)
    return Side(called or name, run, read_movies(root / "data/tensors"))


def test_differences_are_scikit_learns_and_the_interval_is_that_of_the_claims(root):
    facts = compare(side(root), side(root, "pmmo-kl-l2"), **HOW)
    runs, movies = read(root, ROWS)
    evidence = Evidence(runs, movies, **CHANCE)
    gaps = evidence.gap("pmmo-kl-l2", "gmu")
    for place, average in enumerate(AVERAGES):
        found = facts["scores"][average]
        expected = two_way(gaps.points[:, place], gaps.draws[:, :, place]).interval(0.95)
        assert (found["difference"], found["low"], found["high"]) == pytest.approx(
            (expected.estimate, expected.low, expected.high)
        )
        for key, name in (("first_mean", "gmu"), ("second_mean", "pmmo-kl-l2")):
            cycles = runs[name].probabilities("test") > 0.5
            scores = [
                f1_score(movies.truth("test"), guesses, average=average, zero_division=0)
                for guesses in cycles
            ]
            assert found[key] == pytest.approx(np.mean(scores))
        assert found["difference"] == pytest.approx(found["second_mean"] - found["first_mean"])
    assert (facts["movies"], facts["seeds"]) == (150, [0, 1, 2, 3, 4])
    # of both systems, so not `elbo`
    assert facts["settings"] == {"system": ("gmu", "pmmo")}


def test_the_other_way_round_all_signs_change(root):
    one = compare(side(root), side(root, "pmmo-kl-l2"), **HOW)["scores"]["macro"]
    other = compare(side(root, "pmmo-kl-l2"), side(root), **HOW)["scores"]["macro"]
    assert (one["difference"], one["low"], one["high"]) == pytest.approx(
        (-other["difference"], -other["high"], -other["low"])
    )


def test_a_row_and_itself_are_the_same(root):
    facts = compare(side(root), side(root, called="HEAD:gmu"), **HOW)
    assert {entry["verdict"] for entry in facts["scores"].values()} == {"the same"}
    assert "Settings: the same." in in_words(facts)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.004, 0.003, "equivalent"),
        (-0.005, 0.003, "undecided"),
        (-0.004, 0.006, "undecided"),
        (0.001, 0.004, "higher"),  # small, and shown
        (-0.004, -0.001, "lower"),
        (0.0, 0.0, "the same"),
    ],
)
def test_two_rows_closer_than_the_margin_are_equivalent(low, high, word):
    assert verdict(Interval((low + high) / 2, low, high), margin=0.005) == word


def other_labels(movies):
    labels = movies.labels.copy()
    labels[-1] = 1 - labels[-1]
    return replace(movies, labels=labels)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda movies: replace(movies, genres=movies.genres[::-1]), "other genres"),
        (other_labels, "other movies, labels or splits"),
        (lambda movies: replace(movies, ids=movies.ids[::-1]), "other movies, labels or splits"),
        (
            lambda movies: replace(movies, splits=dict(movies.splits) | {"test": (400, 500)}),
            "tested on 150 movies, b on 100",
        ),
    ],
)
def test_other_movies_are_refused(root, change, reason):
    first, second = side(root, called="a"), side(root, called="b")
    second = replace(second, movies=change(second.movies))
    with pytest.raises(PmmoError, match=f"^a and b cannot be compared: .*{reason}"):
        compare(first, second, **HOW)


def test_other_seeds_are_refused(root):
    first, second = side(root), side(root, called="b")
    fewer = replace(second, run=replace(second.run, cycles=second.run.cycles[:3]))
    assert "b [0, 1, 2]" in obstacle(first, fewer)
    moved = [replace(cycle, seed=cycle.seed + 1) for cycle in second.run.cycles]
    with pytest.raises(PmmoError, match="differences are paired by seed"):
        compare(first, replace(second, run=replace(second.run, cycles=tuple(moved))), **HOW)


def test_results_that_are_older_than_their_data_are_refused(root):
    first, second = side(root), side(root, called="b")
    mirrored = replace(first.movies, labels=first.movies.labels[::-1])
    sides = [replace(each, movies=mirrored) for each in (first, second)]
    with pytest.raises(PmmoError, match="gmu: its predictions do not give its scores"):
        compare(*sides, **HOW)


def test_one_cycle_has_a_difference_and_no_interval(tmp_path):
    write_all(tmp_path, movies=200, cycles=1, variants=ROWS)
    facts = compare(side(tmp_path), side(tmp_path, "gmu-wide"), **HOW)
    assert facts["scores"]["micro"]["verdict"] == "undecided"
    words = in_words(facts)
    assert "unknown" in words
    assert "one cycle, which has no interval" in words
    assert frame(facts)[["low", "high"]].isna().all(axis=None)


def test_the_words_and_the_table_have_the_same_numbers(root):
    facts = compare(side(root, called="=main"), side(root, "pmmo-kl-l2"), **HOW)
    words, table = in_words(facts), frame(facts)
    assert words.startswith("pmmo-kl-l2 minus =main\n")
    assert list(table["score"]) == ["f1_micro", "f1_macro", "f1_weighted", "f1_samples"]
    for line in table.itertuples():
        for value in (line.difference, line.low, line.high):
            assert f"{value:+.4f}".replace("-", "−") in words
    assert set(table["first"]) == {"'=main"}  # which a spreadsheet would run
    assert "Settings: system: gmu -> pmmo." in words


# --- the stage -----------------------------------------------------------------------------------


@pytest.fixture
def project(root, tmp_path):
    """A trained system under study beside the rows."""
    for name in ("runs", "data"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "runs").unlink()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/rows").symlink_to(root / "runs/rows")
    study = tmp_path / "runs/experiment"
    study.mkdir()
    for path in (root / "runs/rows/gmu-wide").iterdir():
        (study / path.name).write_bytes(path.read_bytes())
    write_settings(tmp_path, ROWS, draws=200)
    return tmp_path


def test_the_stage_writes_what_it_prints(root, project, capsys):
    comparison.main("gmu", project)
    found = json.loads((project / "reports/comparison.json").read_text())
    expected = compare(side(root), side(root, "gmu-wide"), **HOW)["scores"]["weighted"]
    assert list(found) == ["reference", "difference", "low", "high", "verdict"]
    assert found["reference"] == "gmu"
    assert found["difference"] == pytest.approx(expected["difference"], abs=1e-6)
    assert found["low"] == pytest.approx(expected["low"], abs=1e-6)
    assert "experiment minus gmu" in capsys.readouterr().out


def test_a_system_with_other_seeds_is_recorded_as_not_comparable(project, capsys):
    path = project / "runs/experiment/summary.json"
    summary = json.loads(path.read_text())
    summary["cycles"] = summary["cycles"][:2]
    path.write_text(json.dumps(summary))
    comparison.main("gmu", project)
    found = json.loads((project / "reports/comparison.json").read_text())
    assert found == {"reference": "gmu", "verdict": "not comparable"}
    said = capsys.readouterr().err
    assert "comparison: no difference is measured: gmu has the seeds [0, 1, 2, 3, 4]" in said
    assert "experiment [0, 1], and differences are paired by seed" in said


def test_a_damaged_experiment_names_its_stage(project):
    path = project / "runs/experiment/predictions-1.safetensors"
    save_file({"dev": load_file(path)["dev"]}, path)
    with pytest.raises(PmmoError, match=r"only some cycles .* dvc repro -f experiment$"):
        comparison.main("gmu", project)
