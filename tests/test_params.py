"""params.yaml: what the repository's resolves to, and every wrong value refused by name."""

import copy
import json
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pmmo.config.settings import Rule, Settings, load_settings, save_settings, tunable
from pmmo.core.errors import PmmoError
from pmmo.core.stage import show_as_changed
from pmmo.params import load_params

ROOT = Path(__file__).parents[1]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


def resolve(folder, *changes, drop=()):
    """The params after changes like ("variants.gmu.width", 7); `drop` names keys to remove."""
    tree = copy.deepcopy(TREE)
    for path, value in changes:
        *blocks, last = path.split(".")
        block = tree
        for name in blocks:
            block = block[name]
        block[last] = value
    for path in drop:
        *blocks, last = path.split(".")
        block = tree
        for name in blocks:
            block = block[name]
        del block[last]
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_params(file)


def test_the_repositorys_file():
    params = load_params(ROOT / "params.yaml")
    assert len(params.rows) == 14
    assert list(params.rows) == list(TREE["variants"])
    for name, row in params.rows.items():
        assert row.name == name
        assert row.label == TREE["variants"][name]["label"]
        assert row.cycles == 5
        assert row.epochs == 20
        for key, (_, systems) in tunable().items():
            assert (getattr(row, key) is not None) == (row.system in systems)
            if key != "system" and row.system in systems:
                assert params.origins[name][key]
    assert params.rows["pmmo-kl-l2"].width == 256
    assert params.rows["pmmo-kl-l2-1024"].width == 88
    assert params.rows["gmu"].width == 128
    assert params.rows["pmmo-literal"].kl_weight == "exact"
    assert params.rows["gmu-unregularised"].max_norm == "none"
    assert params.experiment == replace(
        params.rows["pmmo-kl-l2"], name="experiment", label="System under study"
    )
    assert params.data.source == "synthetic"
    assert params.data.rows == 2600
    assert params.intervals.level == 0.95


def test_layers_and_where_values_come_from(tmp_path):
    params = resolve(
        tmp_path,
        ("scales.demo.pmmo.learning_rate", 0.25),
        ("variants.pmmo-kl.learning_rate", 0.5),
        ("dropout", 0.1),
    )
    origins = params.origins
    assert params.rows["pmmo-v1"].learning_rate == 0.25
    assert params.rows["pmmo-kl"].learning_rate == 0.5
    assert params.rows["mmo"].learning_rate == 5e-3
    assert params.experiment.dropout == 0.1
    assert params.rows["pmmo-v1"].dropout == 0.7
    assert origins["pmmo-v1"]["learning_rate"] == "scales.demo.pmmo.learning_rate"
    assert origins["pmmo-kl"]["learning_rate"] == "variants.pmmo-kl.learning_rate"
    assert origins["mmo"]["learning_rate"] == "systems.mmo.learning_rate"
    assert origins["experiment"]["dropout"] == "dropout"
    assert origins["mmo"]["epochs"] == "scales.demo.all.epochs"
    assert origins["gmu"]["width"] == "variants.gmu.width -> scales.demo.widths.base"


def test_scale_paper(tmp_path):
    params = resolve(tmp_path, ("scale", "paper"))
    widths = {params.rows[name].width for name in params.rows}
    assert widths == {3000, 1024, 512}
    assert params.rows["pmmo-kl-l2"].width == 3000
    assert params.rows["pmmo-kl-l2-1024"].width == 1024
    assert params.rows["gmu"].width == 512
    for row in (*params.rows.values(), params.experiment):
        assert (row.epochs, row.batch_size) == (25, 512)
        assert row.maxout_units == (3000 if row.system == "released" else 512)
    assert params.rows["pmmo-v1"].dropout == 0.9
    assert params.rows["gmu"].dropout == 0.7
    assert params.data.source == "mmimdb"
    assert params.data.rows is None
    assert params.data.seed is None


@pytest.mark.parametrize("system", ["gmu", "mmo", "released"])
def test_another_system_at_the_top_works_with_elbo_left_as_it_is(tmp_path, system):
    experiment = resolve(tmp_path, ("system", system)).experiment
    assert experiment.system == system
    assert experiment.elbo is None
    assert experiment.penalty is None
    assert experiment.width == 256


def test_numbers_as_widths(tmp_path):
    params = resolve(tmp_path, ("width", 33), ("variants.gmu.width", 7))
    assert params.experiment.width == 33
    assert params.rows["gmu"].width == 7


SAID = [  # parameter, wrong value, what the message says beside the parameter and the value
    ("scale", "papier", "demo or paper"),
    ("system", "gmv", "pmmo, mmo, gmu or released"),
    ("elbo", "v9", "v1, v2 or kl"),
    ("elbo", None, "v1, v2 or kl"),
    ("penalty", "L2", "none, l1 or l2"),
    ("width", -3, "wide, narrow, base or a whole number >= 1"),
    ("width", 0, "whole number >= 1"),
    ("width", "abc", "wide, narrow, base"),
    ("width", 2.5, "whole number"),
    ("width", True, "whole number"),
    ("gate_input", "both", "outputs or inputs"),
    ("readout", "", "own or classifier"),
    ("classifier_gradient", "on", "flows or detached"),
    ("kl_weight", "exakt", "exact, per_weight or a number >= 0"),
    ("kl_weight", -0.1, "exact, per_weight or a number >= 0"),
    ("anneal_from", 1.1, "a number >= 0 and <= 1"),
    ("penalty_weight", "much", "a number >= 0"),
    ("penalty_on", "scale", "loc or loc_and_scale"),
    ("penalty_reduction", "max", "mean or sum"),
    ("prior", "free", "fixed or learned"),
    ("prior_loc", float("inf"), "a number"),
    ("prior_scale", 0, "a number > 0"),
    ("prior_scale_is", "std", "scale or variance"),
    ("guide_start", "zero", "fan_in or prior"),
    ("guide_scale", -1, "a number > 0"),
    ("prediction", "median", "mean or samples"),
    ("posterior_samples", 0, "a whole number >= 1"),
    ("maxout_layers", 0, "a whole number >= 1"),
    ("maxout_pieces", 1, "a whole number >= 2"),
    ("maxout_units", 1.0, "a whole number >= 1"),
    ("dropout", 1.0, "a number >= 0 and < 1"),
    ("batch_norm", 1, "true or false"),
    ("batch_norm", "yes", "true or false"),
    ("batch_norm_eval", "set", "evaluation_set or running"),
    ("max_norm", 0, "none or a number > 0"),
    ("max_norm", None, "none or a number > 0"),
    ("bce", "median", "mean or sum"),
    ("learning_rate", "much", "a number > 0"),
    ("learning_rate", float("nan"), "a number > 0"),
    ("learning_rate", True, "a number > 0"),
    ("classifier_learning_rate", 0, "a number > 0"),
    ("weight_decay", -1e-9, "a number >= 0"),
    ("kept_epoch", "first", "best or last"),
    ("threshold", 1, "a number > 0 and < 1"),
    ("epochs", 0, "a whole number >= 1"),
    ("batch_size", 2, "a whole number >= 3"),
    ("cycles", [5], "a whole number >= 1"),
    ("seed", -1, "a whole number >= 0"),
    ("device", "gpu", "auto, cpu or cuda"),
    ("data.rows", 0, "a whole number >= 1"),
    ("data.seed", "x", "a whole number >= 0"),
    ("data.nan_text", "skip", "zeros or error"),
    ("data.source", 3, "auto, synthetic, mmimdb, a path or a URL"),
    ("data.source", "", "auto, synthetic, mmimdb, a path or a URL"),
    ("data.memory_limit_gb", 0, "a number > 0"),
    ("data.allow_full_download", "no", "true or false"),
    ("intervals.level", 1.0, "a number > 0 and < 1"),
    ("intervals.draws", 99, "a whole number >= 100"),
    ("intervals.seed", None, "a whole number >= 0"),
    ("variants.gmu.width", "abc", "wide, narrow, base"),
    ("variants.gmu.system", "nn", "pmmo, mmo, gmu or released"),
    ("variants.pmmo-v1.elbo", "v9", "v1, v2 or kl"),
    ("variants.pmmo-v1.elbo", "auto", "v1, v2 or kl"),
    ("systems.pmmo.kl_weight", "much", "exact, per_weight or a number >= 0"),
    ("systems.released.inference", "all", "elbo, squared_weights or none"),
    ("systems.released.gradient_norm", 0.0, "a number > 0"),
    ("scales.demo.all.epochs", 2.0, "a whole number >= 1"),
    ("scales.demo.gmu.dropout", 1.0, "a number >= 0 and < 1"),
    ("scales.demo.widths.wide", "abc", "a whole number >= 1"),
]


@pytest.mark.parametrize(("path", "value", "allowed"), SAID)
def test_wrong_values_are_refused_by_name(tmp_path, path, value, allowed):
    with pytest.raises(PmmoError) as refusal:
        resolve(tmp_path, (path, value))
    message = str(refusal.value)
    assert message.startswith(f"{path} is {value!r}")
    assert allowed in message


@pytest.mark.parametrize(
    ("path", "value"), [("inference", "all"), ("gradient_norm", -1), ("inference", 0)]
)
def test_wrong_values_of_settings_another_system_has_are_refused_too(tmp_path, path, value):
    with pytest.raises(PmmoError, match=f"^{path} is {re.escape(repr(value))}; allowed: "):
        resolve(tmp_path, (path, value))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("elbow", "params.yaml"),
        ("variants.gmu.drop_out", "variants.gmu"),
        ("systems.gmu.drop_out", "systems.gmu"),
        ("systems.gmv", "systems"),
        ("scales.demo.al", "scales.demo"),
        ("scales.demo.all.drop_out", "scales.demo.all"),
        ("scales.demo.gmu.drop_out", "scales.demo.gmu"),
        ("scales.laptop", "scales"),
        ("data.sauce", "data"),
        ("data.sha256.images", "data.sha256"),
        ("intervals.levels", "intervals"),
    ],
)
def test_misspelt_keys_are_refused(tmp_path, path, place):
    key = path.split(".")[-1]
    with pytest.raises(PmmoError) as refusal:
        resolve(tmp_path, (path, 0.5))
    assert str(refusal.value).startswith(f"{place} has an unknown key {key!r}; allowed: ")


@pytest.mark.parametrize("path", ["elbo", "scale", "variants", "scales.demo", "systems.gmu"])
def test_missing_keys_are_named(tmp_path, path):
    with pytest.raises(PmmoError, match=f"lacks the key '{path.split('.')[-1]}'"):
        resolve(tmp_path, drop=[path])


@pytest.mark.parametrize("key", ["label", "system", "width"])
def test_a_row_needs_label_system_and_width(tmp_path, key):
    with pytest.raises(PmmoError, match=f"^variants.mmo lacks the key '{key}'"):
        resolve(tmp_path, drop=[f"variants.mmo.{key}"])


def test_a_setting_no_layer_gives_is_named(tmp_path):
    with pytest.raises(PmmoError, match=r"^systems\.mmo\.bce is missing"):
        resolve(tmp_path, drop=["systems.mmo.bce"])


@pytest.mark.parametrize(
    ("path", "value", "system"),
    [
        ("variants.gmu.elbo", "v1", "gmu"),
        ("variants.mmo.penalty", "l2", "mmo"),
        ("systems.gmu.weight_decay", 0.1, "gmu"),
        ("scales.demo.gmu.kl_weight", 1.0, "gmu"),
        ("scales.demo.all.kl_weight", 1.0, "gmu"),
        ("variants.pmmo-released.max_norm", 5.0, "released"),
        ("inference", "none", "pmmo"),
    ],
)
def test_a_setting_the_system_has_not_got_is_refused(tmp_path, path, value, system):
    drop = ["variants.pmmo-kl-l2", "variants.pmmo-kl-l2-1024"] if ".all." in path else []
    with pytest.raises(PmmoError) as refusal:
        resolve(tmp_path, (path, value), drop=drop)
    assert str(refusal.value).startswith(f"{path}: the system {system!r} has no such setting")


@pytest.mark.parametrize("name", ["GMU", "a b", "a_b", "a/b", "", "ä", "../x", 5])
def test_names_of_rows(tmp_path, name):
    rows = {name: TREE["variants"]["gmu"]}
    with pytest.raises(PmmoError, match="a-z, 0-9 and - only"):
        resolve(tmp_path, ("variants", rows))


@pytest.mark.parametrize("name", ["experiment", "data", "reports"])
def test_taken_names(tmp_path, name):
    with pytest.raises(PmmoError, match=f"^variants.{name}: this name is taken"):
        resolve(tmp_path, (f"variants.{name}", TREE["variants"]["gmu"]))


@pytest.mark.parametrize("row", [None, "gmu", ["gmu"]])
def test_a_row_that_is_no_block(tmp_path, row):
    with pytest.raises(PmmoError, match=r"^variants\.gmu is .*must be a block"):
        resolve(tmp_path, ("variants.gmu", row))


@pytest.mark.parametrize(
    "block",
    ["data", "intervals", "systems", "scales", "variants"],
)
def test_blocks_that_are_no_blocks(tmp_path, block):
    with pytest.raises(PmmoError, match="must be a block"):
        resolve(tmp_path, (block, 3))


@pytest.mark.parametrize(
    "path",
    [
        "scales.demo.all",
        "scales.demo.widths",
        "scales.demo.data",
    ],
)
def test_blocks_of_a_scale_that_are_no_blocks(tmp_path, path):
    with pytest.raises(PmmoError, match=r"must be a block|allowed"):
        resolve(tmp_path, (path, 3))


@pytest.mark.parametrize(
    "path",
    [
        "scales.demo.widths.wide",
        "scales.demo.data.source",
    ],
)
def test_missing_keys_of_a_scales_blocks_are_named(tmp_path, path):
    with pytest.raises(PmmoError, match=path.split(".")[-1]):
        resolve(tmp_path, drop=[path])


def test_mirrors_are_a_list(tmp_path):
    with pytest.raises(PmmoError, match=r"data\.mirrors"):
        resolve(tmp_path, ("data.mirrors", "https://example.org/x.hdf5"))


@pytest.mark.parametrize("text", ["a: [", "", "- 1", "3"])
def test_files_that_are_no_settings(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(PmmoError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("label", [None, 3, "", ["x"]])
def test_labels_are_text(tmp_path, label):
    with pytest.raises(PmmoError, match=r"variants\.gmu\.label"):
        resolve(tmp_path, ("variants.gmu.label", label))


def test_settings_survive_json(tmp_path):
    file = tmp_path / "settings.json"
    params = load_params(ROOT / "params.yaml")
    for row in (*params.rows.values(), params.experiment):
        save_settings(row, file)
        assert load_settings(file) == row
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def stored(folder, change, row="gmu"):
    block = asdict(load_params(ROOT / "params.yaml").rows[row])
    change(block)
    file = folder / "settings.json"
    file.write_text(json.dumps(block))
    return load_settings(file)


def test_json_with_unknown_or_missing_keys_is_refused(tmp_path):
    with pytest.raises(PmmoError, match=r"unknown settings \['dropuot'\].*dvc repro resolve"):
        stored(tmp_path, lambda block: block.update(dropuot=0.5))
    with pytest.raises(PmmoError, match=r"settings \['system'\] are missing"):
        stored(tmp_path, lambda block: block.pop("system"))
    with pytest.raises(PmmoError, match="epochs is None"):
        stored(tmp_path, lambda block: block.pop("epochs"))
    with pytest.raises(PmmoError, match="elbo = 'v1': the system 'gmu' has no such setting"):
        stored(tmp_path, lambda block: block.update(elbo="v1"))
    with pytest.raises(PmmoError, match=r"dropout is 1\.0; allowed"):
        stored(tmp_path, lambda block: block.update(dropout=1.0))


def test_settings_refuse_nonsense_themselves():
    row = load_params(ROOT / "params.yaml").rows["gmu"]
    with pytest.raises(PmmoError, match="system is 'x'"):
        Settings(name="a", label="b", system="x")
    with pytest.raises(PmmoError, match="epochs is 0"):
        replace(row, epochs=0)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-5, 5), st.floats(-5, 5))
def test_rules_of_numbers(value, low, high):
    with np.errstate(over="ignore", under="ignore"):
        kept = float(np.float32(value))  # what training makes of it
    finite = (
        kept == kept and abs(kept) != float("inf") and (abs(kept) >= 1.1754944e-38 or value == 0)
    )
    assert Rule(kind=float, low=low, high=high).allows(value) == (finite and low <= value <= high)
    assert Rule(kind=float, above=low, below=high).allows(value) == (finite and low < value < high)
    assert not Rule(kind=int).allows(value)
    assert not Rule(kind=float).allows(str(value))


@pytest.mark.parametrize(("text", "value"), [("1e-05", 1e-5), ("5e-4", 5e-4), ("2E+1", 20.0)])
def test_numbers_are_read_as_dvc_writes_them(tmp_path, text, value):
    """PyYAML alone takes them for text, and `-S learning_rate=1e-5` could not be set."""
    written = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"(?m)^learning_rate: auto", f"learning_rate: {text}", written))
    assert load_params(path).experiment.learning_rate == value


def test_git_restores_a_file_of_the_same_size_and_the_same_second(tmp_path):
    """What `dvc exp run -S elbo=v9` leaves: git has noted the times of the wrong file."""

    def git(*words: str) -> None:
        me = ("-c", "user.name=u", "-c", "user.email=u@example.org")
        subprocess.run(["git", *me, *words], cwd=tmp_path, check=True, capture_output=True)

    path = tmp_path / "params.yaml"
    path.write_text("elbo: kl\n")
    git("init", "-q")
    git("add", "params.yaml")
    git("commit", "-qm", "as it was")
    path.write_text("elbo: v9\n")
    noted = path.stat()  # at the latest what git can have noted; it may compare whole seconds
    show_as_changed(path)
    assert int(path.stat().st_mtime) > int(noted.st_mtime)
    git("restore", "params.yaml")
    assert path.read_text() == "elbo: kl\n"
