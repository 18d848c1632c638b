"""The audit of published systems: its facts against their form, its page against its facts.

The form is written down here and not in the program that makes the page.
"""

import copy
import re
import sys
from collections import Counter
from collections.abc import Callable

import pytest
import yaml

from pmmo.published import mmimdb, paper
from scripts import published_systems
from scripts.published_systems import main, page
from tests.clone import ROOT

TEXT = (ROOT / "pmmo/published/systems.yaml").read_text()
AUDIT = yaml.safe_load(TEXT)
SYSTEMS = AUDIT["systems"]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs/published.md").read_text()
NOT_SEEN = "not seen"
AVERAGES = {"micro", "macro", "weighted", "samples"}


def is_averages(value: object) -> bool:
    return isinstance(value, list) and value != [] and set(value) <= AVERAGES


def is_scores(value: object) -> bool:
    return isinstance(value, list) and all(map(is_row, value))


def is_row(line: dict) -> bool:
    scores = {name: f1 for name, f1 in line.items() if name != "row"}
    fractions = all(isinstance(f1, float) and 0 < f1 < 1 for f1 in scores.values())
    return isinstance(line.get("row"), str) and set() < set(scores) <= AVERAGES and fractions


FORM: dict[str, Callable[[object], bool]] = {
    "year": lambda value: type(value) is int and 2017 <= value <= 2026,
    "features": lambda value: isinstance(value, str),
    "split": lambda value: isinstance(value, str),
    "test_movies": lambda value: type(value) is int and value > 0,
    "genres": lambda value: type(value) is int and value > 0,
    "threshold": lambda value: type(value) is float and 0 < value < 1,
    "epoch": lambda value: isinstance(value, str),
    "seeds": lambda value: isinstance(value, str),
    "averages": is_averages,
    "scores": is_scores,
}
SOURCE = re.compile(r"((?P<other>[\w-]+): )?(?P<what>paper(, .+)?|issue \d+|[\w./-]+@[0-9a-f]{7})")


def faults(audit: dict) -> list[str]:
    """What is wrong with the form of the facts."""
    found = []
    for key, system in audit["systems"].items():
        if set(system) != {"name", "paper", "repository", "comparable", "facts"}:
            found.append(f"{key}: keys")
            continue
        answer = system["comparable"]
        if answer["answer"] not in ("yes", "no"):
            found.append(f"{key}: the answer is neither yes nor no")
        if not answer["because"].rstrip().endswith("."):
            found.append(f"{key}: no reason")
        if (answer["answer"] == "no") != bool(answer["habits"]):
            found.append(f"{key}: habits without a no, or the reverse")
        if not set(answer["habits"]) <= set(audit["habits"]):
            found.append(f"{key}: unknown habit")
        if list(system["facts"]) != list(FORM):
            found.append(f"{key}: facts")
            continue
        for name, fact in system["facts"].items():
            sources = fact.get("source", [])
            if not set(fact) <= {"value", "source", "note"}:
                found.append(f"{key}, {name}: keys")
            if fact["value"] != NOT_SEEN and not FORM[name](fact["value"]):
                found.append(f"{key}, {name}: value")
            if bool(sources) != (fact["value"] != NOT_SEEN or "note" in fact):
                found.append(f"{key}, {name}: sources")
            found += [f"{key}, {name}: {s}" for s in sources if not cited(s, system, audit)]
    return found


def cited(source: str, system: dict, audit: dict) -> bool:
    """Whether a source has one of the forms, and the paper or repository that it speaks of."""
    match = SOURCE.fullmatch(source)
    if match is None or (match["other"] or "") not in {"", *audit["systems"]}:
        return False
    owner = audit["systems"][match["other"]] if match["other"] else system
    return owner["paper" if match["what"].startswith("paper") else "repository"] != NOT_SEEN


def test_every_fact_has_its_form_and_a_source():
    assert faults(AUDIT) == []
    assert len(SYSTEMS) >= 10


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("gmu.comparable.answer", True),  # `yes` without quotation marks
        ("gmu.comparable.because", ""),
        ("gmu.comparable.habits", ["threshold"]),
        ("bm-nas.comparable.habits", []),
        ("bm-nas.comparable.habits", ["bad luck"]),
        ("gmu.facts.threshold", {"value": 0.5}),
        ("gmu.facts.threshold", {"value": NOT_SEEN, "source": ["paper"]}),
        ("gmu.facts.threshold", {"value": NOT_SEEN, "note": "Perhaps 0.5."}),
        ("gmu.facts.threshold.value", "0.5"),
        ("gmu.facts.threshold.source", ["memory"]),
        ("gmu.facts.threshold.source", ["train.py"]),
        ("gmu.facts.threshold.source", ["nobody: paper, Table 1"]),
        ("centralnet.facts.genres", {"value": 23, "source": ["train.py@638a765"]}),
        ("gmu.facts.test_movies.value", "7,799"),
        ("gmu.facts.averages.value", ["mean"]),
        ("gmu.facts.scores.value", [{"row": "GMU", "micro": 63.0}]),
        ("gmu.facts.scores.value", [{"row": "GMU"}]),
    ],
)
def test_a_fact_of_another_form_is_found(path, wrong):
    audit = copy.deepcopy(AUDIT)
    *parents, last = path.split(".")
    entry = audit["systems"]
    for key in parents:
        entry = entry[key]
    entry[last] = wrong
    assert faults(audit) != []


def test_no_key_is_written_twice():
    """The YAML reader keeps the last of two without a word."""
    nodes = [yaml.compose(TEXT)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            names = Counter(key.value for key, _ in node.value)
            assert set(names.values()) <= {1}, names
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def seen(key: str, name: str) -> object:
    value = SYSTEMS[key]["facts"][name]["value"]
    return None if value == NOT_SEEN else value


@pytest.mark.parametrize("key", SYSTEMS)
def test_the_answer_follows_from_the_facts(key):
    answer = SYSTEMS[key]["comparable"]
    first, stop = mmimdb.SPLITS["test"]
    protocol = (seen(key, "test_movies"), seen(key, "genres"), seen(key, "threshold"))
    if answer["answer"] == "yes":
        assert protocol == (stop - first, len(mmimdb.GENRES), 0.5)
        assert "dev" in seen(key, "epoch")
    movies, genres, threshold = protocol
    assert ("threshold" in answer["habits"]) == (threshold not in (None, 0.5))
    assert ("test epoch" in answer["habits"]) == ("test" in (seen(key, "epoch") or ""))
    if movies not in (None, stop - first) or genres not in (None, len(mmimdb.GENRES)):
        assert "movies" in answer["habits"]


@pytest.mark.parametrize("key", [key for key in SYSTEMS if seen(key, "scores")])
def test_each_score_is_of_an_average_that_the_system_reports(key):
    given = set().union(*SYSTEMS[key]["facts"]["scores"]["value"]) - {"row"}
    assert given <= set(seen(key, "averages"))


def test_scores_written_elsewhere_are_the_same():
    rows = {line.pop("row"): line for line in copy.deepcopy(seen("pm-mo", "scores"))}
    assert rows == {
        row.label: {name: getattr(row, name) for name in AVERAGES} for row in paper.TABLE1.values()
    }
    weighted = {line["row"]: line["weighted"] for line in seen("gmu", "scores")}
    assert weighted["GMU"] == paper.AREVALO["gmu"].weighted
    assert weighted["MaxoutMLP_w2v (text)"] == paper.AREVALO["mlp-text"].weighted
    assert weighted["VGG_Transfer (image)"] == paper.AREVALO["mlp-image"].weighted


def test_the_committed_page_is_that_of_the_facts(monkeypatch, tmp_path):
    monkeypatch.setattr(published_systems, "PAGE", tmp_path / "published.md")
    monkeypatch.setattr(sys, "argv", ["published_systems"])
    main()
    assert (tmp_path / "published.md").read_text() == PAGE


def test_the_page_counts_and_names_the_systems():
    answers = Counter(system["comparable"]["answer"] for system in SYSTEMS.values())
    assert f"**{answers['yes']} of {len(SYSTEMS)} published systems" in PAGE
    assert f"Of {len(SYSTEMS)} published systems on MM-IMDb, {answers['yes']} " in README
    for habit, text in AUDIT["habits"].items():
        names = [s["name"] for s in SYSTEMS.values() if habit in s["comparable"]["habits"]]
        assert f"| {text} | {len(names)} | {', '.join(names)} |\n" in PAGE
    for system in SYSTEMS.values():
        section = PAGE.split(f"\n## {system['name']}\n")[1].split("\n## ")[0]
        assert f"**Comparable: {system['comparable']['answer']}.**" in section
        assert len(re.findall(r"^\| .* \| not seen\W.* \|$", section, re.M)) == sum(
            fact["value"] == NOT_SEEN for name, fact in system["facts"].items() if name != "scores"
        )


def test_a_changed_fact_changes_the_page():
    audit = copy.deepcopy(AUDIT)
    audit["systems"]["mmbt"]["facts"]["test_movies"] = {"value": 7777, "source": ["issue 3"]}
    assert "| test movies | 7,777 | issue 3 |" in page(audit)


def test_the_page_reads_well_in_a_terminal_too():
    """Lines outside tables of at most 120 characters, no empty cell, links to sections."""
    lines = PAGE.splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
    assert [line for line in lines if re.search(r"\|\s*\|", line)] == []
    titles = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-")
              for t in re.findall(r"^## (.*)$", PAGE, re.M)}  # fmt: skip
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(links) == len(set(links)) == len(SYSTEMS)
    assert set(links) <= titles
