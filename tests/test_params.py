"""params.yaml: what the repository's resolves to, and every wrong value refused by name."""

import contextlib
import copy
import json
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from pmmo.config.settings import (
    ELBOS,
    LARGEST,
    SMALLEST,
    SYSTEMS,
    Rule,
    Settings,
    load_settings,
    save_settings,
    tunable,
)
from pmmo.core.errors import PmmoError
from pmmo.core.stage import show_as_changed
from pmmo.params import Verdicts, load_params, read_yaml

ROOT = Path(__file__).parents[1]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(changes, drop=()) -> dict:
    """The tree after changes like ("variants.gmu.width", 7); `drop` names keys to remove."""
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
    return tree


def resolve(folder, *changes, drop=()):
    """The params of a file with these changes."""
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(changed(changes, drop), sort_keys=False))
    return load_params(file)


def resolve_tree(folder, *changes):
    """The same without a file, which is most of the time that it takes."""
    tree = changed(changes)

    def read(path: Path) -> object:
        return tree if path.name == "params.yaml" else read_yaml(path)

    with mock.patch("pmmo.params.read_yaml", read):
        return load_params(folder / "params.yaml")


def test_the_repositorys_file():
    params = load_params(ROOT / "params.yaml")
    assert list(params.rows) == list(TREE["variants"])
    for name, row in params.rows.items():
        assert row.name == name
        assert row.label == TREE["variants"][name]["label"]
        assert row.cycles == 5
        assert row.epochs == TREE["variants"][name].get("epochs", 40 if row.system == "gmu" else 20)
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
        params.rows["pmmo-kl-l2"],
        name="experiment",
        label="System under study",
        epoch_predictions=False,
    )
    assert params.data.source == "synthetic"
    assert params.data.rows == 2600
    assert params.intervals.level == 0.95
    assert params.verdicts == Verdicts(equivalent=0.005, rise=0.01, power=0.8)


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


@pytest.mark.parametrize("name", ["experiment", "gmv", None, 3])
def test_the_reference_is_a_row(tmp_path, name):
    assert resolve(tmp_path, ("reference", "gmu")).rows
    with pytest.raises(PmmoError, match=rf"^reference is {name!r}; it must be a row: pmmo-kl-l2, "):
        resolve(tmp_path, ("reference", name))


def test_scale_paper(tmp_path):
    params = resolve(tmp_path, ("scale", "paper"))
    widths = {params.rows[name].width for name in params.rows}
    assert widths == {3000, 1024, 512}
    assert params.rows["pmmo-kl-l2"].width == 3000
    assert params.rows["pmmo-kl-l2-1024"].width == 1024
    assert params.rows["gmu"].width == 512
    for row in (*params.rows.values(), params.experiment):
        assert (row.epochs, row.batch_size) == (25, 512)
        assert row.maxout_units == row.width
    assert params.rows["pmmo-v1"].dropout == 0.9
    assert params.rows["gmu"].dropout == 0.7
    assert params.data.source == "mmimdb"
    assert params.data.rows is None
    assert params.data.seed is None


@pytest.mark.parametrize("system", ["gmu", "mlp", "mmo", "released"])
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
    ("system", "gmv", str(Rule(SYSTEMS))),
    ("elbo", "v9", str(Rule(ELBOS))),
    ("elbo", None, str(Rule(ELBOS))),
    ("penalty", "L2", "none, l1 or l2"),
    ("width", -3, "wide, narrow, base or a whole number >= 1"),
    ("width", 0, "whole number >= 1"),
    ("width", "abc", "wide, narrow, base"),
    ("width", 2.5, "whole number"),
    ("width", True, "whole number"),
    ("gate_input", "both", "outputs or inputs"),
    ("variants.mlp-text.inputs", "plot", "text, image or both"),
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
    ("train_on", "dev", "train or train+dev"),
    ("epoch_predictions", "yes", "true or false"),
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
    ("guard.margin", 1.0, "a number >= 0 and < 1"),
    ("verdicts.equivalent", -0.1, "a number >= 0 and < 1"),
    ("verdicts.rise", "little", "a number >= 0 and < 1"),
    ("verdicts.power", 0.4, "a number >= 0.5 and < 1"),
    ("variants.gmu.width", "abc", "wide, narrow, base"),
    ("variants.gmu.system", "nn", str(Rule(SYSTEMS))),
    ("variants.pmmo-v1.elbo", "v9", str(Rule(ELBOS))),
    ("variants.pmmo-v1.elbo", "auto", str(Rule(ELBOS))),
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
        ("guard.margins", "guard"),
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
    ["data", "intervals", "guard", "systems", "scales", "variants"],
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
    finite = np.isfinite(kept) and (abs(kept) >= np.finfo(np.float32).tiny or value == 0)
    assume(kept == value or abs(kept) not in (SMALLEST, LARGEST))  # rounded onto a bound
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


# ---- bounds


TOO_MUCH = [  # parameter, value, what the message says beside the parameter
    ("width", 10**18, "<= 32768"),
    ("variants.gmu.width", 40_000, "<= 32768"),
    ("scales.demo.widths.base", 10**18, "<= 32768"),
    ("maxout_layers", 10**7, "<= 64"),
    ("maxout_pieces", 65, "<= 64"),
    ("maxout_units", 2**31, "<= 32768"),
    ("posterior_samples", 10**9, "<= 10000"),
    ("epochs", 10**12, "<= 100000"),
    ("batch_size", 2**63, "<= 10000000"),
    ("cycles", 10**6, "<= 1000"),
    ("cycles_together", 10**6, "<= 1000"),
    ("seed", 2**70, "<= 2147483647"),
    ("systems.mmo.seed", 2**31, "<= 2147483647"),
    ("data.rows", 10**7, "<= 1000000"),
    ("data.seed", 2**64, "<= 2147483647"),
    ("data.memory_limit_gb", 1e300, "<= 1e+06"),
    ("intervals.draws", 10**9, "<= 20000"),
    ("intervals.seed", 2**32, "<= 2147483647"),
    ("prior_loc", 1e39, "a number (as a 32-bit float)"),
    ("prior_scale", 1e-50, "a number > 0 (as a 32-bit float)"),
    ("learning_rate", float("inf"), "a number > 0 (as a 32-bit float)"),
    ("kl_weight", 10**400, "a number >= 0"),
    ("engine", "head:65536", "host:port"),
    ("gpu_share", 2.0, "<= 1"),
]


@pytest.mark.parametrize(("path", "value", "allowed"), TOO_MUCH)
def test_values_that_nothing_could_work_with_are_refused(tmp_path, path, value, allowed):
    with pytest.raises(PmmoError) as refusal:
        resolve_tree(tmp_path, (path, value))
    message = str(refusal.value)
    assert message.startswith(f"{path} is ")
    assert allowed in message
    assert len(message) < 300


def test_every_number_of_a_row_has_an_upper_bound_or_fits_a_float():
    """So that a model's settings, too, are refused before anything is built of them."""
    for name, (rule, _) in tunable().items():
        if rule.kind is int:
            assert rule.high is not None, name
        assert not rule.allows(10**400), name
        assert not rule.allows(2.0**200), name
        assert not rule.allows(2.0**-200), name


@pytest.mark.parametrize("value", [None, 3, "x", ["x"], {"a": 1}, True, "2001-02-03"])
def test_every_value_of_another_type_is_a_result_or_a_refusal(tmp_path, value):
    """Never another error, whatever stands anywhere in the file."""

    def places(block: dict, before: str = "") -> list[str]:
        found = []
        for key, item in block.items():
            found.append(f"{before}{key}")
            if isinstance(item, dict):
                found += places(item, f"{before}{key}.")
        return found

    chosen = [p for p in places(TREE) if not p.startswith("variants.") or ".gmu" in p[8:13]]
    assert len(chosen) > 150
    for path in chosen:
        with contextlib.suppress(PmmoError):
            resolve_tree(tmp_path, (path, value))


@pytest.mark.parametrize(
    "text",
    [
        "seed: " + "9" * 5000,
        "seed: 2001-99-99",
        "seed: !!python/object:os.system",
        "seed: \x00",
        "[" * 5000,
        "a: &a [*a]\nscale: *a",
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "b: &b [*a, *a, *a, *a]\n" * 3 + "scale: *b",
    ],
    ids=["digits", "date", "tag", "nul", "deep", "itself", "bomb"],
)
def test_files_made_to_do_harm(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(PmmoError, match=r"^params\.yaml|params\.yaml is not valid YAML") as caught:
        load_params(tmp_path / "params.yaml")
    assert len(str(caught.value)) < 1000  # some name all that is allowed


def test_values_that_cannot_be_written_out_are_refused_briefly(tmp_path):
    """A billion references, and a number that Python does not turn into digits."""
    bomb = [1]
    for _ in range(9):
        bomb = [bomb] * 9
    for value in (bomb, {"a": bomb}, 16**5000, "x" * 10**7):
        for path in ("penalty_weight", "epochs", "data", "variants.gmu", "data.sha256", "elbo"):
            with pytest.raises(PmmoError) as caught:
                resolve_tree(tmp_path, (path, value))
            assert len(str(caught.value)) < 3000


def test_a_file_that_is_not_utf_8_or_not_there(tmp_path):
    (tmp_path / "params.yaml").write_bytes("label: λ".encode("utf-16"))
    with pytest.raises(PmmoError, match="not valid YAML: a character that is not UTF-8"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(PmmoError, match=r"none\.yaml cannot be read .*project's folder"):
        load_params(tmp_path / "none.yaml")


@pytest.mark.parametrize("label", ["x" * 201, "a\nb", "\u202egnp", "\x1b[31m", "a\u200bb"])
def test_labels_are_short_and_printable(tmp_path, label):
    with pytest.raises(PmmoError, match=r"gmu\.label is .*at most 200 printable characters"):
        resolve_tree(tmp_path, ("variants.gmu.label", label))


def test_names_of_rows_are_short(tmp_path):
    with pytest.raises(PmmoError, match="at most 64"):
        resolve_tree(tmp_path, ("variants", {"x" * 65: TREE["variants"]["gmu"]}))


@pytest.mark.parametrize("pin", [3, 10**63, "abc", "g" * 64, "0" * 65, ["0"], None, True])
def test_pins_are_hashes(tmp_path, pin):
    with pytest.raises(
        PmmoError, match=r"^data\.sha256\.genres is .*expected 64 hexadecimal digits"
    ):
        resolve_tree(tmp_path, ("data.sha256.genres", pin))


def test_good_pins_and_mirrors_pass(tmp_path):
    data = resolve_tree(
        tmp_path,
        ("data.sha256.genres", "0aF" + "0" * 61),
        ("data.mirrors", ["HTTPS://example.org:8443/a%20b/x.hdf5", "http://[::1]/x?download=1"]),
    ).data
    assert data.sha256["genres"].startswith("0aF")
    assert len(data.mirrors) == 2


# ---- where the movies come from


@pytest.mark.parametrize(
    "source",
    ["a\0b", "a\nb", "x" * 5000, "\u202exyz", ["x"], {"a": "b"}, True, 1.5, None],
)
def test_what_is_no_path_is_refused_without_repeating_it(tmp_path, source):
    with pytest.raises(PmmoError, match=r"^data\.source is .*a path or a URL") as caught:
        resolve_tree(tmp_path, ("data.source", source))
    assert len(str(caught.value)) < 300


SECRETS = [
    "https://host/f?sig=SECRET",
    "https://host/f?SECRET",
    "https://host/f?download=1&token=SECRET",
    "https://host/f?sig=$SIG&key=SECRET",
    "https://host/f?sig=$SIG.SECRET",
    "HTTPS://host/f?X-Amz-Signature=SECRET",
    "https://host/f#SECRET",
    "https://host/f;jsessionid=SECRET",
    "https://user:SECRET@host/f",
    "https://SECRET@host/f",
    "https://user:$PASS@host/f",
    "https://user:12/SECRET@host/f",
    "https://host:SECRET/f",
    "https://[SECRET/f",
    "https:/host/f?sig=SECRET",
    "http:host/SECRET?x=1",
    "ftp://user:SECRET@host/f",
    "s3://SECRET/f?x=1",
    "https://host/f?sig=SECRET\n",
    " https://host/f?sig=SECRET",
    "https://host/f?sig=a b SECRET",
]


@pytest.mark.parametrize("address", SECRETS)
@pytest.mark.parametrize("place", ["source", "mirrors", "only mirror"])
def test_a_secret_in_the_open_is_refused_and_not_repeated(tmp_path, address, place):
    changes = {
        "source": ("data.source", address),
        "mirrors": ("data.mirrors", ["https://example.org/x", address]),
        "only mirror": ("data.mirrors", address),
    }
    with pytest.raises(PmmoError, match=r"^data\.(source|mirrors)") as caught:
        resolve_tree(tmp_path, changes[place])
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("block", ["data", "data.mirrors", "data.sha256"])
def test_a_block_that_is_no_block_is_not_repeated(tmp_path, block):
    value = ["https://host/f?sig=SECRET", {"https://user:SECRET@host/f": 1}]
    with pytest.raises(PmmoError, match=block) as caught:
        resolve_tree(tmp_path, (block, value))
    assert "SECRET" not in str(caught.value)


def test_a_slip_in_the_file_is_named_by_its_line_and_not_repeated(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("data:\n  source: 'https://host/f?sig=SECRET' x\n")
    with pytest.raises(PmmoError, match=r"not valid YAML: line 2, column") as caught:
        load_params(path)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://host/f?$QUERY",
        "https://host/f?sig=$SIG&Expires=$UNTIL",
        "https://host:8443/dl/$TOKEN/f.hdf5?download=1",
        "http://$HOST:$PORT/f",
        "http://127.0.0.1:8000/movies.hdf5",
        "https://bücher.example/f-1.0_(2).hdf5",
    ],
)
def test_secrets_by_name_are_kept_as_they_are_written(tmp_path, monkeypatch, address):
    for name in ("QUERY", "SIG", "UNTIL", "TOKEN", "HOST", "PORT"):
        monkeypatch.setenv(name, "SECRET")
    assert resolve_tree(tmp_path, ("data.source", address)).data.source == address


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with this project's dvc.yaml and something at some of its outs."""
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    for name in ("data/fetched/movies.hdf5", "data/own.hdf5", "runs/rows/gmu/x", "elsewhere/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "source",
    [
        "data/fetched/movies.hdf5",
        "./data/../data/fetched/movies.hdf5",
        "data/tensors",
        "data/tensors/deep/own.hdf5",
        "data/fetched/columns.json",
        "settings/own.hdf5",
        "runs/experiment/own.hdf5",
        "runs/rows/gmu/x",
        "runs/rows/own.hdf5",
        ".work/fetch/own.hdf5",
        "runs",
        "reports/metrics.json",
        "reports/tables/table1.md",
        "reports/experiment_curves.csv",
        "link.hdf5",
        "folder/movies.hdf5",
        "~/data/fetched/movies.hdf5",
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_source_that_the_pipeline_deletes_is_refused(project, monkeypatch, source, absolute):
    (project / "link.hdf5").symlink_to("data/fetched/movies.hdf5")
    (project / "folder").symlink_to("data/fetched")
    monkeypatch.setenv("HOME", str(project))
    if absolute and not source.startswith("~"):
        source = str(project / source)
    with pytest.raises(PmmoError, match=r"is, lies in or holds .* which the pipeline deletes"):
        resolve_tree(project, ("data.source", source))


def test_a_source_in_an_out_that_lies_elsewhere_is_refused(project):
    """`runs` on a large disk; and a file to which an out is a link."""
    (project / "runs").rename(project / "disk")
    (project / "runs").symlink_to("disk")
    (project / "data/fetched/movies.hdf5").unlink()
    (project / "data/fetched/movies.hdf5").symlink_to(project / "elsewhere/y")
    for source in ("disk/rows/gmu/x", "runs/rows/gmu/x", "elsewhere/y"):
        with pytest.raises(PmmoError, match="which the pipeline deletes"):
            resolve_tree(project, ("data.source", source))


@pytest.mark.parametrize(
    "source",
    ["data/own.hdf5", "data/fetched/movies.hdf5.bak", "elsewhere/y", "runs/own.hdf5", "~nobody-/x"],
)
def test_a_source_beside_the_outs_is_taken(project, source):
    (project / "loop").symlink_to("loop")
    assert resolve_tree(project, ("data.source", source)).data.source == source
    assert resolve_tree(project, ("data.source", "loop")).data.source == "loop"
