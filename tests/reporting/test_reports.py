"""The reporting stages on simulated runs: numbers, tables, figures and the page."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_info, threadpool_limits

from pmmo.analysis.metrics import f1_scores
from pmmo.core.errors import PmmoError
from pmmo.published import paper
from pmmo.reporting import style
from pmmo.reporting.figures import FIGURES
from pmmo.reporting.formats import number, to_markdown
from pmmo.reporting.latex import to_latex
from pmmo.reporting.page import revision
from pmmo.reporting.paper_figures import figure2
from pmmo.reporting.score_tables import table1, table2
from pmmo.reporting.tables import TABLES
from pmmo.reporting.verdict_tables import claims, power
from stages import aggregate, report
from tests.fake_runs import ON_DEV, VARIANTS, read, write_all, write_settings

MOVIES, CYCLES = 500, 5


def snapshot(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Runs of every row, aggregated and reported."""
    root = tmp_path_factory.mktemp("pipeline")
    write_all(root, movies=MOVIES, cycles=CYCLES, variants=VARIANTS + ON_DEV)
    write_settings(root, VARIANTS + ON_DEV, draws=300)
    aggregate.main(root)
    report.main(root)
    return root


@pytest.fixture(scope="module")
def numbers(root) -> dict:
    return report.numbers_of(root / "reports")


def drawn(root: Path, numbers: dict, name: str) -> dict[str, bytes]:
    """A figure that `report` has made."""
    path = root / "reports/figures" / name
    return {kind: path.with_suffix(f".{kind}").read_bytes() for kind in ("svg", "png", "csv")}


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """What `aggregate` reads, to change."""
    for name in ("runs/rows", "data", "settings"):
        shutil.copytree(root / name, tmp_path / name)
    return tmp_path


# --- aggregate -----------------------------------------------------------------------------------


def test_metrics_are_the_mean_over_cycles_of_scikit_learns_test_scores(root):
    metrics = json.loads((root / "reports" / "metrics.json").read_text())
    assert list(metrics) == [name for name, _ in VARIANTS]
    runs, movies = read(root)
    truth = movies.truth("test")
    cycles = [f1_scores(truth, p > 0.5) for p in runs["gmu"].predictions("test")]
    for average in ("micro", "macro", "weighted", "samples"):
        expected = np.mean([cycle[average] for cycle in cycles])
        assert metrics["gmu"][f"f1_{average}"] == pytest.approx(expected, abs=1e-6)


TIMED = {"provenance.json", "tables/costs.md", "tables/costs.csv", "index.html"}


def test_both_stages_repeat_every_byte_that_clock_and_machine_leave(root, copy, monkeypatch):
    """Another run on another machine modifies four files in git; on the same one, none."""
    for path in (copy / "runs/rows").glob("*/environment.json"):
        other = json.loads(path.read_text())
        other |= {"seconds_per_epoch": [7.0 + cycle for cycle in range(CYCLES)]}
        other |= {"seconds_total": 71.0, "cpu": "another CPU", "gpu": "a GPU", "cores": 5}
        other |= {"device": "cuda", "cuda": "12.8", "platform": "BSD", "threads": 3, "workers": 4}
        other |= {"python": "3.13.0"}
        path.write_text(json.dumps(other))
    aggregate.main(copy)
    report.main(copy)
    first, second = snapshot(root / "reports"), snapshot(copy / "reports")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == TIMED
    old, new = (
        json.loads((folder / "reports/provenance.json").read_text())["claims"]
        for folder in (root, copy)
    )
    assert [claim["verdict"] for claim in old] == ["holds"]
    assert [claim["verdict"] for claim in new] == ["undecided"]  # all rows cost the same
    assert "costs more than an epoch of the GMU: undecided" in second["tables/costs.md"].decode()
    assert "another CPU" in second["tables/costs.md"].decode()
    shutil.copy(root / "reports/provenance.json", copy / "reports")
    monkeypatch.setattr(report, "render", partial(drawn, copy))  # the figures, found equal above
    report.main(copy)
    assert snapshot(copy / "reports") == first


def test_aggregate_computes_on_one_thread(root, monkeypatch):
    """The last bits of a product, and with them a regression's score, depend on the threads."""
    threads = []

    class Seen(Exception):
        pass

    def look(*_):
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        threads.extend(pool["num_threads"] for pool in blas)
        raise Seen

    monkeypatch.setattr(aggregate, "regressions", look)
    with threadpool_limits(2, user_api="blas"), pytest.raises(Seen):
        aggregate.main(root)
    assert set(threads) == {1}


def test_a_removed_row_is_not_read_and_shown_as_not_run(copy):
    kept = [(name, label) for name, label in VARIANTS if name not in ("pmmo-v1", "gmu-wide")]
    write_settings(copy, kept)
    (copy / "runs/rows" / "pmmo-v1" / "summary.json").write_text("left over from an older grid")
    aggregate.main(copy)
    assert "pmmo-v1" not in json.loads((copy / "reports/metrics.json").read_text())
    numbers = report.numbers_of(copy / "reports")
    table = to_markdown(table2(numbers), numbers)
    line = next(line for line in table.splitlines() if "ELBOv1)" in line)
    assert line.count("not run") == 4
    assert "0.609" in line  # the paper's number stays
    claims = json.loads((copy / "reports/claims.json").read_text())
    assert claims["kl-beats-v1"] == {"paper": 0.002, "verdict": "not run"}
    assert claims["mmo-lowest"]["verdict"] != "not run"


def test_one_row_and_one_cycle_are_enough_for_reports(tmp_path):
    rows = [("gmu", "GMU Baseline")]
    write_all(tmp_path, movies=200, cycles=1, variants=rows, genres={"Drama": 9000, "Short": 4000})
    write_settings(tmp_path, rows)
    aggregate.main(tmp_path)
    report.main(tmp_path)
    claims = json.loads((tmp_path / "reports/claims.json").read_text())
    assert {claim["verdict"] for claim in claims.values()} == {"not run"}
    assert "±" not in (tmp_path / "reports/tables/table1.md").read_text().splitlines()[6]


def test_one_cycle_decides_no_claim_about_scores(tmp_path):
    write_all(tmp_path, movies=300, cycles=1)
    write_settings(tmp_path, VARIANTS)
    aggregate.main(tmp_path)
    claims = json.loads((tmp_path / "reports/claims.json").read_text())
    assert {claim["verdict"] for claim in claims.values()} == {"undecided"}


def test_a_missing_run_says_how_to_make_it(copy):
    shutil.rmtree(copy / "runs/rows" / "mmo")
    with pytest.raises(PmmoError, match=r"mmo.*dvc repro -f train@mmo"):
        aggregate.main(copy)


def another_score(summary: dict) -> None:
    summary["cycles"][2]["test"]["macro"] += 0.01


def another_movie(summary: dict) -> None:
    summary["rows"]["test"] += 1


def another_seed(summary: dict) -> None:
    summary["cycles"][0]["seed"] = 77


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_score, "test predictions do not give the scores"),
        (another_movie, r"mmo: .* rows trained on different data"),
        (another_seed, "other seeds"),
    ],
)
def test_results_that_contradict_others_are_refused(copy, change, message):
    path = copy / "runs/rows/mmo/summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    with pytest.raises(PmmoError, match=message):
        aggregate.main(copy)


def test_predictions_of_other_movies_are_refused(copy):
    for path in (copy / "runs/rows/gmu").glob("predictions-*.safetensors"):
        save_file({key: array[:-1] for key, array in load_file(path).items()}, path)
    with pytest.raises(PmmoError, match=r"dev predictions are not of the 50 movies.*train@gmu"):
        aggregate.main(copy)


def test_predictions_that_one_cycle_lacks_are_missed(copy):
    path = copy / "runs/rows/gmu/predictions-3.safetensors"
    arrays = load_file(path)
    save_file({key: array for key, array in arrays.items() if key != "test_gate"}, path)
    with pytest.raises(PmmoError, match=r"only some cycles have the predictions 'test_gate'"):
        aggregate.main(copy)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_without_readable_movies_extract_is_named(copy, damage):
    path = copy / "data/tensors/genres.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PmmoError, match=r"no readable movies .*Run dvc repro extract"):
        aggregate.main(copy)


def test_a_report_before_the_numbers_names_the_stage_that_makes_them(tmp_path):
    with pytest.raises(PmmoError, match=r"numbers.json: .*Run dvc repro aggregate"):
        report.main(tmp_path)


def test_no_rows_is_an_error_for_people(copy):
    write_settings(copy, [])
    with pytest.raises(PmmoError, match="names no row"):
        aggregate.main(copy)


def test_the_gate_of_a_genre_is_the_mean_over_its_movies(root, numbers):
    runs, movies = read(root)
    truth, gate = movies.truth("test"), runs["gmu"].predictions("test_gate")
    column = numbers["data"]["genres"].index("Film-Noir")
    expected = np.mean([cycle[truth[:, column] == 1].mean() for cycle in gate])
    assert numbers["gates"]["gmu"]["genres"]["mean"][column] == pytest.approx(expected, abs=1e-5)


# --- tables --------------------------------------------------------------------------------------


def test_tables_show_ours_the_papers_and_the_difference(numbers):
    table = table1(numbers)
    assert [row[0] for row in table.rows] == [row.label for row in paper.TABLE1.values()]
    mean = numbers["scores"]["gmu"]["test"]["weighted"]["mean"]
    line = table.rows[2]
    assert line[8] == "0.608"
    assert line[7].startswith(number(mean))
    assert line[9] == number(mean - 0.608, sign=True)


def test_a_claim_about_a_row_that_still_improved_says_so(numbers):
    first, *others = numbers["claims"]
    marked = claims(numbers | {"claims": [first | {"rising": ["mmo"]}, *others]})
    assert marked.rows[0][0].endswith("(still improving: mmo)")
    assert marked.rows[0][1:] == claims(numbers).rows[0][1:]  # its verdict stays
    assert "improving" not in claims(numbers | {"claims": [first | {"rising": []}]}).rows[0][0]


def test_a_power_that_no_number_reaches_is_said(numbers):
    first, *_ = numbers["power"]["claims"]
    impossible = {"cycles": None, "movies": 1200, "published_cycles": 7}
    unasked = first | {"paper": None, "needed": None}
    facts = numbers["power"] | {"claims": [first | {"needed": impossible}, unasked]}
    table = power(numbers | {"power": facts})
    columns = [table.header.index(text) for text in ("Cycles needed", "Movies needed")]
    assert [[row[c] for c in columns] for row in table.rows] == [["none", "1,200"], ["–", "–"]]
    assert table.frame["movies_needed"].tolist()[0] == 1200


def test_every_report_names_its_data(root):
    for path in (root / "reports").rglob("*.*"):
        if path.suffix in (".md", ".tex", ".html"):
            assert "synthetic data" in path.read_text(), path.name
        elif path.suffix == ".csv" and path.stem not in ("scores", "curves"):
            assert pd.read_csv(path)["data"].str.contains("synthetic").all(), path.name


def test_reports_say_rows_parameters_seeds_and_versions(root):
    text = (root / "reports/tables/table1.md").read_text()
    for expected in ("train 300, dev 50, test 150", "batch size 128", "Seeds: 0, 1, 2, 3, 4"):
        assert expected in text
    for expected in ("torch 2.13.0", "scikit-learn"):
        assert expected in text


def test_data_that_is_not_synthetic_is_not_called_so(numbers):
    provenance = numbers["data"]["provenance"] | {"kind": "http", "source": "https://x/y.hdf5"}
    real = numbers | {"data": numbers["data"] | {"provenance": provenance}}
    for text in (to_markdown(table2(real), real), to_latex(table2(real), real)):
        assert "synthetic" not in text
        assert "https://x/y.hdf5" in text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0101, "−0.010"), (0.02, "+0.020"), (-0.0001, "0.000"), (None, "–")]
)
def test_numbers_are_set_with_a_true_minus_and_no_signed_zero(value, text):
    assert number(value, sign=True) == text


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_well_formed(root, name):
    svg = (root / "reports/figures" / f"{name}.svg").read_bytes()
    ET.fromstring(svg)
    assert b"<dc:date>" not in svg
    pixels = imread(root / "reports/figures" / f"{name}.png")
    assert pixels.std() > 0.05  # not blank
    assert pixels.shape[1] >= 600
    assert len(pd.read_csv(root / "reports/figures" / f"{name}.csv")) > 0


def test_figure_2_ends_one_epoch_after_the_best(root, numbers):
    frame = pd.read_csv(root / "reports/figures/figure2.csv")
    for name, curve in frame.groupby("variant"):
        mean = numbers["curves"][name]["dev_weighted"]["mean"]
        assert curve["epoch"].max() == min(np.argmax(mean) + 2, len(mean))
    # the claim takes each cycle's own best epoch, which may order the two rows the other way
    words = " ".join(text.get_text() for text in figure2(numbers)[0].texts)
    for name in ("gmu", "gmu-unregularised"):
        assert f"{np.mean(numbers['variants'][name]['best_epochs']):.1f}" in words


def test_the_power_figure_shows_what_its_table_says(root):
    figure = pd.read_csv(root / "reports/figures/power.csv").set_index("key")
    table = pd.read_csv(root / "reports/tables/power.csv").set_index("key")
    assert list(figure.index) == list(table.index[(table["paper"] > 0) & (table["unit"] == "F1")])
    for cycles in (5, 10, 30):
        ours, theirs = figure[f"mmimdb_{cycles}"], table[f"mmimdb_smallest_{cycles}"]
        np.testing.assert_allclose(ours, theirs[figure.index])


def test_figure_3_counts_the_genres_won(root, numbers):
    frame = pd.read_csv(root / "reports/figures/figure3.csv")
    ahead = int((frame["pmmo-kl-l2_mean"] > frame["gmu_mean"]).sum())
    claim = next(c for c in numbers["claims"] if c["key"] == "pmmo-wins-most-genres")
    assert claim["ours"] == ahead


def test_figures_draw_the_most_frequent_of_many_genres_and_their_csv_has_all(numbers, monkeypatch):
    counts = np.array(numbers["data"]["counts"])
    monkeypatch.setattr(style, "MOST_GENRES", 5)
    most, note = style.drawn_genres(numbers)
    assert sorted(counts[most]) == sorted(counts)[-5:]
    assert list(most) == sorted(most)
    for name in ("figure1", "figure3", "gates"):
        figure, frame = FIGURES[name](numbers)
        shown = {tick.get_text() for tick in figure.axes[0].get_yticklabels()}
        assert shown == {numbers["data"]["genres"][place] for place in most}
        assert set(frame["genre"]) == set(numbers["data"]["genres"])
        assert any(note.strip() in text.get_text() for text in figure.texts)


# --- the page ------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_from_outside(root):
    html = (root / "reports" / "index.html").read_text()
    assert len(html) < 1_500_000
    assert "<script" not in html
    for link in re.findall(r"""(?:src|href)=["']([^"']+)""", html):
        assert link.startswith(("#", "data:")), link
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)


def test_the_page_has_every_report_and_unique_ids(root):
    html = (root / "reports" / "index.html").read_text()
    assert html.count("<svg") == len(FIGURES)
    assert html.count("<table") == len(TABLES) + 1  # all settings
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for text in ("Synthetic data.", "Table 1.", "Table 2.", "Git revision", "sha256 features"):
        assert text in html


def test_a_folder_without_git_has_no_revision(tmp_path):
    assert "not known" in revision(tmp_path)


def chromium(folder: Path, page: Path, *flags: str) -> subprocess.CompletedProcess:
    """Headless Chromium on a page, alone and with a profile of its own; skips without it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine")
    quiet = (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "hide-scrollbars"),
        *("enable-logging=stderr", f"user-data-dir={folder / 'user'}"),
    )
    command = [program, *(f"--{flag}" for flag in (*quiet, *flags)), page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_renders_in_a_browser_without_an_error(root, tmp_path, dark):
    flags = ["window-size=420,900", f"screenshot={tmp_path / 'page.png'}"]
    flags += ["blink-settings=preferredColorScheme=0"] if dark else []
    done = chromium(tmp_path, root / "reports" / "index.html", *flags)
    assert "CONSOLE" not in done.stderr
    pixels = imread(tmp_path / "page.png")[..., :3]
    assert (np.median(pixels) < 0.3) == dark  # the background follows the scheme
    assert pixels.std() > 0.05


def test_a_phone_scrolls_the_page_in_one_direction_only(root, tmp_path):
    """Wide tables and figures scroll inside their own boxes, 390 pixels wide."""
    page = escape((root / "reports" / "index.html").read_text())
    (tmp_path / "phone.html").write_text(
        "<!doctype html><iframe style='width:390px;height:800px;border:0' srcdoc='"
        + page.replace("'", "&#39;")
        + "' onload='const e = this.contentDocument.documentElement;"
        'document.title = "width " + e.scrollWidth + " of " + e.clientWidth\'></iframe>'
    )
    done = chromium(tmp_path, tmp_path / "phone.html", "virtual-time-budget=2000", "dump-dom")
    assert "<title>width 390 of 390</title>" in done.stdout


def test_the_page_prints_on_few_sheets(root, tmp_path):
    flags = (f"print-to-pdf={tmp_path / 'page.pdf'}", "no-pdf-header-footer")
    chromium(tmp_path, root / "reports" / "index.html", *flags)
    sheets = (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n")
    assert 5 <= sheets <= 14


def test_the_revision_says_whether_the_code_is_committed(tmp_path):
    def git(*words: str) -> str:
        me = ("-c", "user.name=u", "-c", "user.email=u@example.org")
        command = ["git", *me, *words]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "params.yaml").write_text("elbo: kl\n")
    git("add", "-A")
    git("commit", "-qm", "one")
    (tmp_path / "notes").write_text("no part of the pipeline")
    assert revision(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "params.yaml").write_text("elbo: v2, changed\n")
    assert revision(tmp_path).endswith(", with uncommitted changes")
