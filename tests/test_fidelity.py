"""docs/fidelity.md against the code: links, names, sentences, departures; and uniform settings."""

import ast
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from pmmo.params import load_params
from pmmo.published.paper import TABLE2

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/fidelity.md").read_text()
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
# the pages that this one sends a reader to, checked alike
PAGES = ("fidelity.md", "released-code.md", "literal.md", "objectives.md", "claims.md", "power.md")
SECTIONS = {"2.1": 8, "2.2": 8, "2.3": 5, "3": 3, "3.1": 19, "3.2": 11, "4": 5, "4.1": 5, "4.2": 24}
EQUATIONS, FIGURES, TABLES = range(1, 8), range(1, 4), range(1, 3)


def links(page):
    """(what is named or None, target) of each link to a file of this repository."""
    text = (ROOT / "docs" / page).read_text()
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
        if "://" not in target:
            name = re.fullmatch(r"`([^`]+)`", label)
            yield name and name[1], target.split("#")[0]


def names(tree, inside=""):
    """Dotted names that a Python file defines: functions, classes, their members, values."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield inside + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node, f"{inside}{node.name}.")
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (inside + n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def keys(tree):
    for key, value in tree.items():
        yield key
        if isinstance(value, dict):
            yield from keys(value)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_every_name_is_in_it(page):
    wrong = []
    for name, target in links(page):
        path = (ROOT / "docs" / target).resolve()
        if not path.exists():
            wrong.append(f"{target} is not there")
        elif name and path.suffix == ".py" and name != path.name:
            module, _, inside = name.partition(".")
            if module != path.stem or inside not in set(names(ast.parse(path.read_text()))):
                wrong.append(f"{target} has no {name}")
        elif name and path.name == "params.yaml" and name not in {*keys(PARAMS), "params.yaml"}:
            wrong.append(f"params.yaml has no {name}")
    assert not wrong


def rows_of(section):
    """First cells of the table under a section's heading."""
    heading = rf"^### {re.escape(section)} [^\n]*\((\d+) sentences\)\n(.*?)(?=^##)"
    found = re.search(heading, PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no heading of section {section}"
    cells = [line.split("|")[1].strip() for line in found[2].splitlines() if line.startswith("|")]
    return int(found[1]), cells[2:]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_sentence_of_a_section_has_its_line(section):
    promised, cells = rows_of(section)
    assert promised == SECTIONS[section]
    numbers = []
    for cell in cells:
        if found := re.fullmatch(r"s(\d+)(?:–s(\d+))?", cell):
            first = int(found[1])
            numbers += range(first, int(found[2] or first) + 1)
    assert numbers == list(range(1, promised + 1))


def test_every_equation_figure_and_table_has_its_line():
    cells = [cell for section in SECTIONS for cell in rows_of(section)[1]]
    expected = [f"Eq. {n}" for n in EQUATIONS]
    expected += [f"Figure {n}" for n in FIGURES] + [f"Table {n}" for n in TABLES]
    assert sorted(c for c in cells if not c.startswith("s")) == sorted(expected)


def departures(text):
    return {int(n) for n in re.findall(r"\bD(\d+)\b", text)}


def test_departures_are_numbered_without_gaps_and_each_is_explained():
    lines = re.findall(r"^\| D(\d+) \|(.*)\|$", PAGE, re.MULTILINE)
    assert [int(n) for n, _ in lines] == list(range(1, len(lines) + 1))
    for number, line in lines:
        opening, settings, reading = (cell.strip() for cell in line.split("|"))
        assert min(len(opening), len(reading)) > 15, f"D{number}"
        for name in re.findall(r"`([^`]+)`", settings):
            assert set(name.split(".")) <= set(keys(PARAMS)), f"D{number}: {name}"


def test_the_code_cites_every_departure_and_no_other():
    table = {int(n) for n in re.findall(r"^\| D(\d+) \|", PAGE, re.MULTILINE)}
    sources = [*(ROOT / "pmmo").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    cited = set().union(*(departures(p.read_text()) for p in [*sources, ROOT / "params.yaml"]))
    assert cited == table
    sentences = PAGE[: PAGE.index("## The departures")]
    assert departures(sentences) <= table


def test_claims_that_the_page_names_are_judged():
    from pmmo.analysis.claims import CLAIMS

    known = {claim.key for claim in CLAIMS}
    named = set()
    for line in PAGE.splitlines():
        if re.search(r"\bclaims? `", line):
            stem = ""
            for key in re.findall(r"`([a-z0-9-]+)`", line.split("claim", 1)[1]):
                key = stem + key if key.startswith("-") else key
                stem = key.split("-")[0]
                named.add(key)
    assert named <= known
    assert len(named) == len(known)


def test_settings_are_uniform_over_the_rows_of_table_2_but_for_what_a_row_names():
    """Section 4.2, s20."""
    rows = load_params(ROOT / "params.yaml").rows
    pmmo = [asdict(rows[name]) for name in TABLE2 if rows[name].system == "pmmo"]
    differing = {key for row in pmmo for key in row if row[key] != pmmo[0][key]}
    kept = {"keep_models", "epoch_predictions"}  # what is stored, not how it is trained
    assert differing - kept == {"name", "label", "elbo", "penalty"}
    mmo, shared = asdict(rows["mmo"]), pmmo[0]
    own = {key for key, value in mmo.items() if value is not None and value != shared[key]}
    assert own - kept == {"name", "label", "system"}
