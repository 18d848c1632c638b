"""The schema of params.yaml, for editors, against the rules that `load_params` checks."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from pmmo import params
from pmmo.__main__ import show_params
from pmmo.core.errors import PmmoError
from tests.clone import ROOT

TEXT = (ROOT / "params.yaml").read_text()
TREE = yaml.safe_load(TEXT)
SCHEMA = json.loads((ROOT / "params.schema.json").read_text())
VALIDATOR = Draft7Validator(SCHEMA)
VALUES = [
    None, True, "auto", "none", "wide", "width", "kl", "pmmo", "x", "", "head:6379", "head:x",
    -1, 0, 1, 2, 3, 64, 10**4, 10**12, 0.5, 1.5, -0.5, 1e-40, 1e39, [], {}, {"x": 1},
    ["http://example.org/x"],
]  # fmt: skip
# no schema can see these: a setting that no layer gives, a reference that is no row
UNSEEN = (
    "is missing from params.yaml",
    "it must be a row: ",
    "movies that are trained on choose no",  # two keys together
)
LAZY = ("scales", "systems")  # load_params reads of them what the rows need

Place = tuple[str, ...]


def places(tree: dict, above: Place = ()) -> list[Place]:
    """The path of each key, blocks and their keys."""
    found = []
    for key, value in tree.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += places(value, (*above, key))
    return found


PLACES = places(TREE)


def refused(tree: dict, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What load_params says against it."""
    monkeypatch.setattr(params, "read_yaml", lambda path: deepcopy(tree))
    try:
        params.load_params(Path("no-pipeline-here/params.yaml"))
    except PmmoError as error:
        return str(error)
    return None


def changed(place: Place, change) -> dict:
    tree = deepcopy(TREE)
    block: Any = tree
    for key in place[:-1]:
        block = block[key]
    change(block, place[-1])
    return tree


def test_the_schema_is_made_from_the_rules():
    assert (ROOT / "params.schema.json").read_text() == show_params(None, schema=True) + "\n"


def test_editors_find_the_schema_by_the_first_line_of_params_yaml():
    assert TEXT.splitlines()[0] == "# yaml-language-server: $schema=params.schema.json"


def test_the_schema_is_one_and_params_yaml_follows_it():
    Draft7Validator.check_schema(SCHEMA)
    assert [error.message for error in VALIDATOR.iter_errors(TREE)] == []


@settings(deadline=None, max_examples=300)
@given(place=st.sampled_from(PLACES), value=st.sampled_from(VALUES))
def test_what_the_rules_refuse_the_schema_refuses(place, value):
    tree = changed(place, lambda block, key: block.update({key: value}))
    with pytest.MonkeyPatch.context() as patch:
        message = refused(tree, patch)
    if message is not None and not any(words in message for words in UNSEEN):
        assert not VALIDATOR.is_valid(tree), message
    elif message is None and place[0] not in LAZY:
        assert [error.message for error in VALIDATOR.iter_errors(tree)] == []


@settings(deadline=None, max_examples=60)
@given(place=st.sampled_from(PLACES))
def test_a_missing_or_misspelt_key_is_refused_by_both(place):
    for tree in (
        changed(place, lambda block, key: block.pop(key)),
        changed(place, lambda block, key: block.update({f"{key}_": block.pop(key)})),
        changed(place, lambda block, key: block.update(elbow="v2")),
    ):
        with pytest.MonkeyPatch.context() as patch:
            message = refused(tree, patch)
        if message is not None and not any(words in message for words in UNSEEN):
            assert not VALIDATOR.is_valid(tree), message


@pytest.mark.parametrize("name", ["Data", "data", "engine", "a" * 65, "a b", "ä", ""])
def test_a_name_that_no_row_may_have_is_refused_by_both(name, monkeypatch):
    tree = changed(("variants", "gmu"), lambda block, key: block.update({name: block.pop(key)}))
    assert name[:20] in refused(tree, monkeypatch)
    assert not VALIDATOR.is_valid(tree)


def test_a_setting_of_another_system_is_refused_by_both(monkeypatch):
    for place in (("variants", "gmu", "elbo"), ("systems", "gmu", "elbo")):
        tree = changed(place, lambda block, key: block.update({key: "v1"}))
        assert "has no such setting" in refused(tree, monkeypatch)
        assert not VALIDATOR.is_valid(tree)
    study = deepcopy(TREE) | {"system": "gmu"}  # elbo and penalty follow
    assert refused(study, monkeypatch) is None
    assert VALIDATOR.is_valid(study)
    study["gradient_norm"] = 1.5
    assert "has no such setting" in refused(study, monkeypatch)
    assert not VALIDATOR.is_valid(study)
