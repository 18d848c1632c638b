"""Every script runs, at a tiny size, and prints what is known of its answer."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from pmmo.data.extract import extract
from pmmo.fetching.synthetic import write_synthetic
from scripts.show_fetch import demonstrate, table
from tests.clone import ROOT
from tests.file_server import FileServer, Handler

Script = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """movies.hdf5 and the tensors that `extract` makes of it."""
    folder = tmp_path_factory.mktemp("movies")
    write_synthetic(folder / "movies.hdf5", rows=120, seed=0)
    extract(folder / "movies.hdf5", folder / "tensors", nan_text="zeros", memory_limit_gb=1)
    return folder


@pytest.fixture
def script(monkeypatch, capsys) -> Script:
    """Runs a script in this process; returns what it prints."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with torch.random.fork_rng():
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def rows(text: str) -> dict[str, list[str]]:
    """The lines of Markdown tables by their first cell."""
    lines = re.findall(r"^\| (.*?) \| (.*) \|$", text, re.M)
    return {first: cells.split(" | ") for first, cells in lines}


def test_explain_literal(script, folder):
    said = script("explain_literal", "--data", folder / "tensors", "--epochs", 1)
    assert set(rows(said)) > {"literal", "literal, ELBOv2", "working"}
    start = re.search(r"^\| literal \| 0 \| (.*) \|$", said, re.M)
    assert start[1].split(" | ")[:4] == ["0", "0", "0", "0"]  # the posterior starts at its prior
    document = (ROOT / "docs/literal.md").read_text()
    for number in ("31,197,000", "102,848", "0.0033"):  # by hand, at the paper's sizes
        assert number in said
        assert number in document


def test_measure_gradients(script, folder):
    said = rows(
        script("measure_gradients", "--data", folder / "tensors", "--epochs", 1, "--draws", 2)
    )
    for when in ("at the start", "after 1 epochs"):
        for kind in ("location", "log-scale"):
            v1, v2 = (said[f"{when}, {kind}, ELBO{elbo}"] for elbo in ("v1", "v2"))
            assert v1[0] == v2[0]  # the likelihood's part is shared
            assert (v2[1], v2[3]) == ("0", "0")  # a closed form does not vary over the draws
            assert min(float(v1[1]), float(v1[3])) > 0


@pytest.mark.parametrize("name", ["explain_literal", "measure_gradients"])
def test_a_script_without_movies_says_how_to_make_them(script, tmp_path, name):
    with pytest.raises(SystemExit, match="Run `dvc repro extract`"):
        script(name, "--data", tmp_path)


def test_calibrate_synthetic(script, folder):
    same = ("--compare", folder / "movies.hdf5")
    said = script("calibrate_synthetic", "--rows", 120, "--epochs", 1, *same)
    assert "Rank correlation of lifts with 120 real movies, 23 genres, 253 pairs: 1.00." in said
    assert rows(said)["Drama"][:2] == ["65", "65"]  # movies, and the published share of 120
    assert 0 < float(rows(said)["logistic, text"][0]) < 1


def test_calibrate_synthetic_needs_the_file_to_compare_with(script, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script("calibrate_synthetic", "--compare", tmp_path / "real.hdf5")
    assert "there is no file" in capsys.readouterr().err


def test_study_openings_in_parts(script, folder, tmp_path, monkeypatch):
    """Each call adds its readings; one seed gives a difference, two give an interval as well."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMMO_WORKERS", "1")

    def study(seeds: int, *options: str) -> pd.DataFrame:
        own = ("--variants", "gmu", "--epochs", 1, "--seeds", seeds, "--output", "openings")
        script("study_openings", folder / "movies.hdf5", *own, *options)
        return pd.read_csv("openings.csv")

    assert list(study(1, "--openings")["opening"]) == ["working reading"]
    one = study(1, "--openings", "LAYERS").iloc[-1]
    assert (one["reading"], one["instead_of"]) == ("maxout_layers 1", "maxout_layers 2")
    two = study(2, "--openings", "dropout", "layers")
    assert len(two) == 2 + 4  # the lines with one seed stay
    base, layers = two.iloc[2], two.iloc[3]
    assert layers["difference"] == pytest.approx(
        layers["dev_weighted"] - base["dev_weighted"], abs=2e-5
    )
    t = 3.18245  # at 97.5 %, with one degree of freedom from each of the three readings
    reach = t * (two.iloc[3:]["difference_sd"].pow(2).mean() / 2) ** 0.5
    assert layers["high"] - layers["difference"] == pytest.approx(reach, abs=2e-4)
    assert two["low"].notna().tolist() == [False] * 3 + [True] * 3
    said = Path("openings-table.md").read_text()
    assert f"| {one['dev_weighted']:.3f} | {one['difference']:+.3f} |".replace("-0.", "−0.") in said
    assert Path("openings.png").stat().st_size > 0


def test_study_openings_names_what_it_studies(script, capsys):
    with pytest.raises(SystemExit):
        script("study_openings", "synthetic", "--variants", "gmu", "nope")
    assert "nope is not studied; these are: pmmo-kl-l2, gmu" in capsys.readouterr().err


@contextmanager
def in_place_of_nginx(folder: Path) -> Iterator[str]:
    """A server of the tests with nginx's log."""
    log = folder / "access.log"
    log.touch()

    def note(request: Handler) -> bool:
        with log.open("a") as file:
            file.write(f"{206 if request.ranged else 200} {request.stop - request.start}\n")
        return False

    with FileServer(folder / "files/movies.hdf5", fault=note) as server:
        yield server.url.removesuffix("/movies.hdf5")


@pytest.mark.parametrize("server", ["nginx", "ours"])
def test_show_fetch(server, monkeypatch, tmp_path):
    if server == "ours":
        monkeypatch.setattr("scripts.show_fetch.nginx", in_place_of_nginx)
    elif shutil.which("nginx") is None:
        pytest.skip("needs nginx (apt-get install nginx)")
    figures = demonstrate(tmp_path, rows=50, whole=True)
    assert figures["identical"]
    assert figures["whole"]["bytes"] >= figures["file_bytes"]
    assert figures["column_bytes"] < figures["ranges"]["bytes"] < 1.3 * figures["column_bytes"]
    assert f"file {figures['file_bytes']:,} bytes" in table(figures)


def test_show_fetch_without_nginx(script, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="nginx is not installed"):
        script("show_fetch")


def test_time_ray_without_ray(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        SystemExit, match=r"pip install -r requirements.txt -r requirements-ray\.txt"
    ):
        script("time_ray")


@pytest.mark.timeout(600)
def test_time_ray(script, monkeypatch):
    pytest.importorskip("ray", reason="Ray is optional: make test-ray installs it")
    monkeypatch.chdir(ROOT)
    said = script("time_ray", "--rows", "gmu", "--epochs", 1)
    assert re.search(r"^two nodes / one node: \d\.\d{3} ", said, re.M)


def test_every_script_is_documented_and_tested():
    scripts = [p.stem for p in (ROOT / "scripts").glob("*.py") if "__main__" in p.read_text()]
    docs = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in scripts if f"python -m scripts.{name}" not in docs] == []
    untested = [
        n
        for n in scripts
        if not re.search(rf'script\("{n}"|scripts\.{n} import|\b{n}\.main\(', tests)
    ]
    assert untested == []
