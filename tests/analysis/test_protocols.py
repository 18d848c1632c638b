"""Each habit of a protocol against scikit-learn on small runs, and the rows that lack something."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import stats
from sklearn.metrics import f1_score

from pmmo.analysis.intervals import deviation_factors, resample
from pmmo.analysis.post_hoc import beyond
from pmmo.analysis.protocols import HABITS, HONEST, ON_DEV, OWN, THRESHOLDS, protocols
from pmmo.analysis.run_reader import read_runs
from pmmo.core.errors import PmmoError
from pmmo.params import load_params
from stages import aggregate
from tests.fake_runs import ON_DEV as ROWS_ON_DEV
from tests.fake_runs import read, write_all, write_settings

CYCLES, EPOCHS = 3, 6
CHANCE = {"level": 0.95, "draws": 100, "seed": 0}
ROWS = [("gmu", "GMU"), ("mmo", "M+MO"), ("pmmo-kl-l2", "PM+MO"), *ROWS_ON_DEV]
GENRES = {"Drama": 13_000, "Comedy": 9_000, "News": 2_000, "Rare": 1}  # a quarter has no label


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """With a test set in which nothing is, or is said to be, of the genre Rare."""
    root = tmp_path_factory.mktemp("tiny")
    write_all(root, movies=240, cycles=CYCLES, epochs=EPOCHS, variants=ROWS, genres=GENRES)
    path = root / "data/tensors/genres.safetensors"
    labels = load_file(path)["genres"]
    labels[168:, -1] = 0
    labels[0, -1] = 1
    save_file({"genres": labels}, path)
    for file in root.glob("runs/rows/*/pr*.safetensors"):
        arrays = load_file(file)
        for value in arrays.values():
            if value.ndim > 1:
                value[..., -1] *= 0.2
        save_file(arrays, file)
    return root


@pytest.fixture
def root(tiny, tmp_path) -> Path:
    """A copy to change."""
    return shutil.copytree(tiny, tmp_path / "root")


def replayed(root: Path, runs=None, **chance) -> dict:
    """key -> row -> entry."""
    chance = CHANCE | chance
    rows, movies = read(root, ROWS)
    rows = rows if runs is None else {name: rows[name] for name in runs}
    judged = {name: run for name, run in rows.items() if not run.trains_on_dev}
    found = protocols(rows, movies, beyond(judged, movies, **chance), **chance)
    return {habit["key"]: habit["rows"] for habit in found["habits"]}


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def f1(truth, decided, average="weighted", **options) -> float:
    return f1_score(truth, decided, average=average, **{"zero_division": 0} | options)


def stored(root: Path, row: str, cycle: int) -> dict[str, np.ndarray]:
    folder = root / "runs/rows" / row
    files = (folder / f"{stem}-{cycle}.safetensors" for stem in ("predictions", "protocols"))
    return {key: value for file in files for key, value in load_file(file).items()}


def scores(root: Path, row: str, key: str, truth: np.ndarray, drawn=None) -> list[tuple]:
    """With the habit and without it, by cycle, written down plainly for scikit-learn."""
    movies = np.arange(len(truth)) if drawn is None else np.repeat(np.arange(len(truth)), drawn)
    y, found = truth[movies], []
    summary = json.loads((root / "runs/rows" / row / "summary.json").read_text())
    for cycle in range(CYCLES):
        own, dev_row = stored(root, row, cycle), stored(root, ON_DEV[row], cycle)
        p, epochs, on_dev = (
            x[..., movies, :] for x in (own["test"], own["test_epochs"], dev_row["test_epochs"])
        )
        kept = summary["cycles"][cycle]["best_epoch"] - 1
        base = f1(y, p > 0.5)
        if key == "test-epoch":
            habit = max(f1(y, epoch > 0.5) for epoch in epochs)
        elif key == "train-dev":
            habit = f1(y, on_dev[kept] > 0.5)
        elif key == "low-threshold":
            habit = f1(y, p > np.float32(0.3))
        elif key == "test-threshold":
            habit = max(f1(y, p > np.float32(t)) for t in THRESHOLDS)
        elif key == "undefined-one":
            base, habit = (f1(y, p > 0.5, "macro", zero_division=value) for value in (0, 1))
        elif key == "movies-dropped":
            left = y[:, list(GENRES).index("News")] == 0
            habit = f1(y[left], (p > 0.5)[left])
        elif key == "evaluation-set":
            habit, base = base, f1(y, own["test_other_statistics"][movies] > 0.5)
        elif key == "together":
            habit = max(f1(y, epoch > np.float32(0.3), zero_division=1) for epoch in on_dev)
        found.append((habit, base))
    return found


@pytest.fixture(scope="module")
def found(tiny) -> dict:
    return replayed(tiny)


@pytest.mark.parametrize("row", ["gmu", "pmmo-kl-l2"])
@pytest.mark.parametrize("key", [key for key in HABITS if key != "best-seed"])
def test_a_habit_is_what_scikit_learn_says(tiny, found, key, row):
    pairs = np.array(scores(tiny, row, key, read(tiny, ROWS)[1].truth("test")))
    entry = found[key][row]
    assert entry["word"] is None
    assert entry["gain"] == pytest.approx((pairs[:, 0] - pairs[:, 1]).mean(), abs=1e-6)
    assert entry["low"] <= entry["gain"] <= entry["high"]
    if key in ("test-epoch", "test-threshold", "undefined-one"):
        assert entry["gain"] >= 0  # on the same movies a choice on them cannot lose


@pytest.mark.parametrize("key", ["test-epoch", "movies-dropped"])
@pytest.mark.usefixtures("found")
def test_the_interval_scores_the_habit_anew_on_each_resampling(tiny, key):
    """The two-way interval of docs/claims.md, written down again from scikit-learn's scores."""
    truth = read(tiny, ROWS)[1].truth("test")
    drawn = resample(len(truth), 10, CHANCE["seed"]).astype(int)
    points = np.subtract(*np.transpose(scores(tiny, "gmu", key, truth)))
    draws = np.array(
        [np.subtract(*np.transpose(scores(tiny, "gmu", key, truth, d))) for d in drawn]
    )
    of_mean, within = draws.mean(1).var(ddof=1), draws.var(0, ddof=1).mean()
    both = (within - of_mean) * CYCLES / (CYCLES - 1)
    parts = [of_mean - both / CYCLES, points.var(ddof=1) - both, both]
    b, a, c = np.maximum(parts, 0)
    variance, seeds = b + (a + c) / CYCLES, points.var(ddof=1) / CYCLES
    freedom = (CYCLES - 1) * (variance / seeds) ** 2
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    entry = replayed(tiny, ["gmu"], draws=10)[key]["gmu"]
    assert (entry["low"], entry["high"]) == pytest.approx(
        (points.mean() - reach, points.mean() + reach), abs=1e-6
    )


def test_the_best_seed_is_the_highest_cycle(tiny, found):
    truth = read(tiny, ROWS)[1].truth("test")
    cycles = np.array([base for _, base in scores(tiny, "gmu", "test-epoch", truth)])
    entry = found["best-seed"]["gmu"]
    assert entry["gain"] == pytest.approx(cycles.max() - cycles.mean(), abs=1e-6)
    expected = 3 / (2 * np.sqrt(np.pi))  # of the highest of three standard normal numbers
    ends = [np.sqrt(2 / stats.chi2.ppf(tail, 2)) for tail in (0.975, 0.025)]
    assert (entry["low"], entry["high"]) == pytest.approx(
        tuple(expected * cycles.std(ddof=1) * end for end in ends), rel=1e-5
    )


def test_the_interval_of_the_best_seed_covers_its_expectation():
    """Of five normal scores, whose highest is 1.163 deviations above their mean."""
    rng = np.random.default_rng(0)
    deviations = rng.normal(size=(4000, 5)).std(axis=1, ddof=1)
    low, high = deviation_factors(5, 0.95)
    assert ((deviations * low < 1) & (deviations * high > 1)).mean() == pytest.approx(
        0.95, abs=0.01
    )
    assert rng.normal(size=(200_000, 5)).max(axis=1).mean() == pytest.approx(1.163, abs=0.01)


def test_honest_improvements_are_those_of_beyond(tiny, found):
    runs, movies = read(tiny, ROWS)
    judged = {name: runs[name] for name in ("gmu", "pmmo-kl-l2")}
    for entry in beyond(judged, movies, **CHANCE):
        for key, switches in HONEST.items():
            if entry["switches"] == [name.format(cycles=CYCLES) for name in switches]:
                ours = found[key][entry["variant"]]
                assert [ours[end] for end in ("gain", "low", "high")] == [
                    entry[end] for end in ("gain", "low", "high")
                ]


# ---- what cannot be replayed ----


def test_running_statistics_as_the_default_change_no_sign(root, found):
    """The habit is the test set's own statistics, whichever the row has."""
    folder = root / "runs/rows/gmu"
    edit(folder / "settings.json", batch_norm_eval="running")
    for cycle in range(CYCLES):
        predictions = load_file(folder / f"predictions-{cycle}.safetensors")
        aside = load_file(folder / f"protocols-{cycle}.safetensors")
        own, other = predictions["test"], aside["test_other_statistics"]
        save_file(predictions | {"test": other}, folder / f"predictions-{cycle}.safetensors")
        save_file(aside | {"test_other_statistics": own}, folder / f"protocols-{cycle}.safetensors")
    entry = replayed(root)["evaluation-set"]["gmu"]
    assert entry["gain"] == pytest.approx(found["evaluation-set"]["gmu"]["gain"])


def words(root: Path, row: str = "gmu", runs=None) -> dict[str, str]:
    return {key: rows[row]["word"] for key, rows in replayed(root, runs).items()}


def test_every_genre_in_train_and_test_leaves_two_habits_nothing(root):
    path = root / "data/tensors/genres.safetensors"
    labels = load_file(path)["genres"]
    labels[[0, -1], -1] = 1
    save_file({"genres": labels}, path)
    catalogue = root / "data/tensors/movies.json"
    edit(catalogue, genres=["Drama", "Comedy", "War", "Rare"])
    found = words(root)
    assert found.pop("movies-dropped") == "does not apply"
    assert found.pop("undefined-one") == "does not apply"
    assert set(found.values()) == {None}


def test_a_genre_unseen_in_training_is_dropped_with_its_movies(root):
    path = root / "data/tensors/genres.safetensors"
    labels = load_file(path)["genres"]
    labels[:144, 1] = 0
    save_file({"genres": labels}, path)
    edit(root / "data/tensors/movies.json", genres=["Drama", "Comedy", "War", "Rare"])
    truth = read(root, ROWS)[1].truth("test")
    left = truth[:, labels[:144].sum(axis=0) == 0].sum(axis=1) == 0
    gains = [
        f1(truth[left], p[left] > 0.5) - f1(truth, p > 0.5)
        for p in (stored(root, "gmu", cycle)["test"] for cycle in range(CYCLES))
    ]
    entry = replayed(root)["movies-dropped"]["gmu"]
    assert entry["gain"] == pytest.approx(np.mean(gains), abs=1e-6)


def test_no_movie_that_would_be_left(root):
    path = root / "data/tensors/genres.safetensors"
    labels = load_file(path)["genres"]
    labels[168:, 2] = 1
    save_file({"genres": labels}, path)
    assert words(root)["movies-dropped"] == "does not apply"


def test_a_row_that_is_absent_or_stored_nothing_is_named(root):
    edit(root / "runs/rows/gmu/settings.json", epoch_predictions=False)
    found = words(root, runs=["gmu", "mmo"])
    assert {key for key, word in found.items() if word == "not stored"} == {
        *("test-epoch", "evaluation-set")
    }
    assert {key for key, word in found.items() if word == "not run"} == {"train-dev", "together"}
    assert "pmmo-kl-l2" not in replayed(root, runs=["gmu"])["test-epoch"]


def test_a_row_on_dev_that_differs_otherwise_is_no_replay(root):
    edit(root / "runs/rows/gmu-train-dev/settings.json", dropout=0.1, epochs=9)
    entry = replayed(root)["train-dev"]["gmu"]
    assert entry["word"] == "does not apply"
    assert "another epochs, dropout than the row" in entry["why"]


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_each_row_of_params_yaml_can_be_replayed_on_dev(scale):
    rows = load_params(scale=scale).rows
    for ours, theirs in ON_DEV.items():
        settings = asdict(rows[ours]).items() - asdict(rows[theirs]).items()
        assert {"train_on"} <= {key for key, _ in settings} <= set(OWN)


def test_a_row_without_batch_norm_or_with_the_low_threshold(root):
    for row in ("gmu", "gmu-train-dev"):
        edit(root / f"runs/rows/{row}/settings.json", batch_norm=False, threshold=0.3)
    found = words(root)
    assert found["evaluation-set"] == found["low-threshold"] == "does not apply"
    assert found["test-epoch"] is None


def test_one_cycle_has_numbers_without_intervals(tmp_path):
    write_all(tmp_path, movies=120, cycles=1, epochs=EPOCHS, variants=ROWS, genres=GENRES)
    found = replayed(tmp_path)
    entry = found["low-threshold"]["gmu"]
    assert np.isfinite(entry["gain"])
    assert np.isinf(entry["high"])
    assert found["best-seed"]["gmu"]["word"] == found["both"]["gmu"]["word"] == "does not apply"


def test_damaged_probabilities_are_named(root):
    (root / "runs/rows/mmo/protocols-1.safetensors").write_bytes(b"cut")
    with pytest.raises(PmmoError, match=r"protocols-1\.safetensors: cannot be read"):
        replayed(root)


def test_rows_on_dev_alone_are_nothing_to_report(tiny):
    with pytest.raises(PmmoError, match="names no row that leaves dev out of training"):
        read_runs(tiny / "runs/rows", ROWS_ON_DEV)


# ---- nothing else reads them ----


def reports(root: Path) -> dict[str, bytes]:
    """What `aggregate` writes, without the numbers of the protocols."""
    write_settings(root, ROWS)
    aggregate.main(root)
    numbers = json.loads((root / "reports/numbers.json").read_text())
    numbers.pop("protocols")
    (root / "reports/numbers.json").write_text(json.dumps(numbers))
    return {path.name: path.read_bytes() for path in (root / "reports").iterdir()}


def test_no_other_number_reads_what_chooses_nothing_or_a_row_on_dev(root):
    before = reports(root)
    assert not [name for name, content in before.items() if b"train-dev" in content]
    rng = np.random.default_rng(0)
    for path in root.glob("runs/rows/*/protocols-*"):
        nonsense = {key: rng.random(x.shape, np.float32) for key, x in load_file(path).items()}
        save_file(nonsense, path)
    assert reports(root) == before
