"""The pipeline as a user runs it: `dvc repro` and `dvc exp run` at a tiny scale, in a clone.

One clone serves all tests here, in the order of the file; each leaves it as it was.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from pmmo.config.settings import ELBOS, Rule
from tests.clone import KEPT, edit_params, run

pytestmark = pytest.mark.timeout(600)


def metrics(clone: Path, name: str) -> dict:
    return json.loads((clone / "reports" / f"{name}.json").read_text())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_report_appears_and_names_the_data(clone):
    for name in ("tables/table1.md", "tables/table2.md", "tables/claims.md", "index.html"):
        assert "synthetic" in (clone / "reports" / name).read_text().lower()
    for number in (1, 2, 3):
        for kind in ("svg", "png", "csv"):
            assert (clone / f"reports/figures/figure{number}.{kind}").stat().st_size > 0
    assert set(metrics(clone, "metrics")) == set(KEPT)
    assert not list((clone / "runs").rglob("*.tmp"))


def test_the_system_under_study_is_the_headline_row_bit_for_bit(clone):
    """Same settings, other name: the same predictions."""
    for cycle in range(2):
        name = f"predictions-{cycle}.safetensors"
        row, study = clone / "runs/rows/pmmo-kl-l2" / name, clone / "runs/experiment" / name
        assert row.read_bytes() == study.read_bytes()


def test_the_lock_records_the_sha256_of_each_column(clone):
    recorded = json.loads((clone / "data/tensors/movies.json").read_text())["provenance"]["sha256"]
    lock = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]["extract"]
    assert lock["params"]["data/fetched/columns.json"]["sha256"] == recorded
    assert set(recorded) == {"features", "genres", "imdb_ids", "vgg_features"}


def test_a_second_run_does_no_work(clone):
    text = run(clone, "dvc", "repro")
    assert "Running stage" not in text
    assert "up to date" in text


@pytest.mark.long
def test_training_again_changes_only_what_the_clock_and_the_machine_write(clone):
    metrics_before = (clone / "reports/metrics.json").read_bytes()
    predictions = (clone / "runs/rows/gmu/predictions-1.safetensors").read_bytes()
    run(clone, "git", "checkout", "-f", ".")
    run(clone, "dvc", "repro", "-f", "-s", "train@gmu")
    run(clone, "dvc", "repro")
    assert {line[3:] for line in run(clone, "git", "status", "--porcelain").splitlines()} <= {
        "dvc.lock",
        "reports/provenance.json",
        "reports/tables/costs.md",
        "reports/tables/costs.csv",
        "reports/index.html",
    }
    assert (clone / "runs/rows/gmu/predictions-1.safetensors").read_bytes() == predictions
    assert (clone / "reports/metrics.json").read_bytes() == metrics_before


@pytest.mark.long
def test_changing_one_row_retrains_that_row_alone(clone):
    edit_params(clone, lambda tree: tree["variants"]["gmu"].update(dropout=0.5))
    text = run(clone, "dvc", "repro")
    trained = [line for line in text.splitlines() if "Running stage 'train" in line]
    assert trained == ["Running stage 'train@gmu':"]
    assert "Running stage 'experiment'" not in text
    run(clone, "git", "checkout", "-f", ".")
    run(clone, "dvc", "checkout")


def test_an_experiment_trains_and_changes_only_the_system_under_study(clone):
    rows = (clone / "reports/metrics.json").read_bytes()
    text = run(clone, "dvc", "exp", "run", "-n", "v2", "-S", "elbo=v2")
    assert "Running stage 'experiment'" in text
    assert "Running stage 'train" not in text
    assert (clone / "reports/metrics.json").read_bytes() == rows
    difference = json.loads(run(clone, "dvc", "metrics", "diff", "--json"))
    assert set(difference) == {"reports/experiment.json", "reports/comparison.json"}
    measured = metrics(clone, "comparison")
    assert measured["reference"] == "pmmo-kl-l2"
    gain = difference["reports/experiment.json"]["f1_weighted"]["diff"]
    assert measured["difference"] == pytest.approx(gain, abs=1e-5)
    assert measured["low"] <= measured["difference"] <= measured["high"]
    said = run(clone, sys.executable, "-m", "pmmo", "compare", "main", "v2")
    assert "v2 minus main" in said
    assert "elbo: kl -> v2" in said
    assert f"{gain:+.4f}".replace("-", "−") in said
    changed = json.loads(run(clone, "dvc", "params", "diff", "--json"))["params.yaml"]
    assert changed["elbo"] == {"old": "kl", "new": "v2"}
    assert "elbo" in run(clone, "dvc", "exp", "diff", "main", "v2")
    assert "v2" in run(clone, "dvc", "exp", "show", "--only-changed", "--no-pager")
    run(clone, "dvc", "plots", "show")
    assert (clone / "dvc_plots/index.html").exists()
    run(clone, "git", "checkout", "-f", ".")
    run(clone, "dvc", "checkout")


def test_an_experiment_alone_keeps_no_comparison_of_another(clone):
    """Trained now, and taken from DVC's cache without a run."""
    before = metrics(clone, "comparison")
    for name in ("alone", "again"):
        text = run(clone, "dvc", "exp", "run", "-n", name, "-S", "elbo=v1", "experiment")
        assert "Running stage 'comparison'" not in text
        assert metrics(clone, "comparison") == {"verdict": "not measured"}
        run(clone, "git", "checkout", "-f", ".")
        run(clone, "dvc", "checkout")
    assert metrics(clone, "comparison") == before


def test_a_wrong_value_is_refused_before_anything_is_trained(clone):
    """test_params.py has the other values."""
    before = contents(clone / "reports")
    text = run(clone, "dvc", "exp", "run", "-S", "elbo=v9", ok=False)
    assert f"elbo is 'v9'; allowed: {Rule(ELBOS)}" in text
    assert "Running stage 'experiment'" not in text
    assert "Running stage 'train" not in text
    assert contents(clone / "reports") == before
    assert "Nothing was trained" in text
    # the remedy that the message names puts everything back
    assert "git restore --staged --worktree params.yaml" in text
    run(clone, "git", "restore", "--staged", "--worktree", "params.yaml")
    run(clone, "git", "diff", "--quiet", "HEAD", "--", "params.yaml")
    assert yaml.safe_load((clone / "params.yaml").read_text())["elbo"] == "kl"


def test_a_misspelt_key_is_refused(clone):
    text = run(clone, "dvc", "exp", "run", "-S", "elbow=v2", ok=False)
    assert "elbow" in text
    assert "Running stage" not in text


def test_the_paper_scale_with_a_file_that_is_not_there_says_so(clone):
    text = run(
        clone, "dvc", "exp", "run", "-S", "scale=paper", "-S", "data.source=absent.hdf5", ok=False
    )
    assert "absent.hdf5" in text
    assert "Traceback" not in text
    run(clone, "git", "checkout", "-f", ".")


def test_switching_the_engine_makes_no_row_stale(clone):
    run(clone, "dvc", "repro")
    edit_params(clone, lambda tree: tree.update(engine="head:6379", gpu_share=0.5))
    assert set(json.loads(run(clone, "dvc", "status", "--json"))) == {"resolve"}
    text = run(clone, "dvc", "repro")
    assert re.findall("Running stage '(.*)'", text) == ["resolve"]
    assert json.loads((clone / "settings/engine.json").read_text())["engine"] == "head:6379"
    run(clone, "git", "checkout", "-f", ".")
    run(clone, "dvc", "checkout")


@pytest.fixture(scope="module")
def apart(clone, tmp_path_factory) -> Path:
    """A copy: what is trained anew without a cache has other clock times, so another lock file."""
    return Path(shutil.copytree(clone, tmp_path_factory.mktemp("grid") / "pmmo"))


@pytest.mark.long
def test_the_grid_command_gives_what_one_repro_gives(apart):
    """Two stages at a time, and the same results and the same lock file as one after another."""
    kept = [
        apart / "reports/metrics.json",
        *sorted(apart.glob("runs/rows/*/predictions-*.safetensors")),
    ]
    before = {path: path.read_bytes() for path in kept}
    lock = yaml.safe_load((apart / "dvc.lock").read_text())["stages"]
    shutil.rmtree(apart / "runs")
    shutil.rmtree(apart / ".dvc/cache")
    text = run(apart, sys.executable, "-m", "pmmo", "grid", "-j", "2")
    assert f"{len(KEPT) + 1} training stages brought up to date" in text
    assert {path: path.read_bytes() for path in kept} == before
    again = yaml.safe_load((apart / "dvc.lock").read_text())["stages"]
    assert again.keys() == lock.keys()
    assert "up to date" in run(apart, "dvc", "repro")
    assert "0 training stages" in run(apart, sys.executable, "-m", "pmmo", "grid")


@pytest.mark.long
def test_the_grid_command_reports_a_row_that_fails_and_goes_on_afterwards(apart):
    """A loss that overflows in one row; the other row is trained all the same."""

    def spoil(tree):
        tree["variants"]["gmu"]["learning_rate"] = 1e30
        tree["variants"]["pmmo-kl-l2"]["anneal_from"] = 0.75

    edit_params(apart, spoil)
    text = run(apart, sys.executable, "-m", "pmmo", "grid", ok=False)
    assert "[train@gmu] train: gmu, cycle" in text
    assert "grid: failed: `dvc repro --single-item train@gmu`" in text
    trained = json.loads((apart / "runs/rows/pmmo-kl-l2/settings.json").read_text())
    assert trained["anneal_from"] == 0.75
    run(apart, "git", "checkout", "-f", ".")
    assert "training stages brought up to date" in run(apart, sys.executable, "-m", "pmmo", "grid")
