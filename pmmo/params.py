"""params.yaml -> validated, resolved settings: the only reader of params.yaml."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pmmo.config.engine import Engine
from pmmo.config.settings import SEEDS, SYSTEMS, UNITS, Rule, Settings, System, check_value, tunable
from pmmo.core.errors import PmmoError, briefly
from pmmo.core.names import EXPERIMENT, SCALES
from pmmo.core.outs import out_at
from pmmo.core.text import hides
from pmmo.fetching.addresses import check_written, is_address, local_path

WIDTHS = ("wide", "narrow", "base")
UNITS_RULE = Rule(kind=int, low=1, high=UNITS)
IN_FILE = {  # settings that params.yaml may give by name; `resolve` turns the names into numbers
    "width": Rule(WIDTHS, int, low=1, high=UNITS),
    "maxout_units": Rule(("width",), int, low=1, high=UNITS),
}
SCALE_RULE = Rule(SCALES)
SEED_RULE = Rule(kind=int, low=0, high=SEEDS)
DATA_RULES = {  # of the keys of `data` that are no text
    "rows": Rule(kind=int, low=1, high=1_000_000),
    "seed": SEED_RULE,
    "nan_text": Rule(("zeros", "error")),
    "memory_limit_gb": Rule(kind=float, above=0.0, high=1e6),
    "allow_full_download": Rule((True, False)),
}
REPORT_RULES = {  # of the blocks that only the reports read
    "intervals": {
        "level": Rule(kind=float, above=0.0, below=1.0),
        "draws": Rule(kind=int, low=100, high=20_000),
        "seed": SEED_RULE,
    },
    "guard": {"margin": Rule(kind=float, low=0.0, below=1.0)},
    "verdicts": {
        "equivalent": Rule(kind=float, low=0.0, below=1.0),
        "rise": Rule(kind=float, low=0.0, below=1.0),
        "power": Rule(kind=float, low=0.5, below=1.0),
    },
}
AUTO = "auto"
FOLLOWING = ("elbo", "penalty")  # not `auto` at the top, yet `-S system=gmu` alone must do
HASHED_COLUMNS = ("features", "genres", "imdb_ids", "vgg_features")
ROW_NAME = re.compile("[a-z0-9-]{1,64}")
SHA256 = re.compile("[0-9A-Fa-f]{64}")
LONGEST_LABEL, LONGEST_SOURCE = 200, 4096  # characters
MOST_MIRRORS = 100
TAKEN = (EXPERIMENT, "data", "reports", "engine")  # files of settings/ that are no row's
ENGINE = ("engine", "gpu_share")
BLOCKS = ("scales", "systems", "variants")

Origins = dict[str, str]  # setting -> the key of params.yaml that its value comes from


class Loader(yaml.SafeLoader):
    """With YAML 1.2's numbers: `1e-05`, as `dvc exp run -S` writes it, is a text to PyYAML."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class DataSettings:
    """Where the movies come from; settings/data.json."""

    source: str
    rows: int | None
    seed: int | None
    nan_text: str
    memory_limit_gb: float
    allow_full_download: bool
    mirrors: list[str]
    sha256: dict[str, str]


@dataclass(frozen=True)
class Intervals:
    """Of the claims: confidence level, bootstrap draws over movies, seed."""

    level: float
    draws: int
    seed: int


@dataclass(frozen=True)
class Guard:
    """Against rows that did not train: how far below the reference they may stay."""

    margin: float


@dataclass(frozen=True)
class Verdicts:
    """Of the claims: margins of F1 for "equivalent" and "stopped improving", and the power."""

    equivalent: float
    rise: float
    power: float


@dataclass(frozen=True)
class Params:
    """params.yaml, resolved: the rows in order, the system under study, the data."""

    rows: dict[str, Settings]
    experiment: Settings
    data: DataSettings
    intervals: Intervals
    guard: Guard
    verdicts: Verdicts
    engine: Engine
    origins: dict[str, Origins]


def load_params(path: Path = Path("params.yaml"), scale: str | None = None) -> Params:
    """Read and resolve everything, at `scale` if given instead of the file's.

    PmmoError names the first parameter that is wrong.
    """
    tree = read_yaml(path)
    if scale is not None:
        tree["scale"] = scale
    check_keys(
        "", tree, {"scale", "reference", "data", *REPORT_RULES, *ENGINE, *BLOCKS, *tunable()}
    )
    check_value("scale", tree["scale"], SCALE_RULE)
    check_keys("scales", tree["scales"], set(SCALES))
    check_keys("systems", tree["systems"], set(SYSTEMS))
    check_blocks(tree)
    resolved = {}
    origins = {}
    for name, row in tree["variants"].items():
        check_name(name)
        resolved[name], origins[name] = resolve_row(tree, name, row)
    resolved[EXPERIMENT], origins[EXPERIMENT] = resolve_experiment(tree)
    experiment = resolved.pop(EXPERIMENT)
    check_reference(tree["reference"], resolved)
    return Params(
        rows=resolved,
        experiment=experiment,
        data=resolve_data(tree, path.parent),
        intervals=Intervals(**checked(tree, "intervals")),
        guard=Guard(**checked(tree, "guard")),
        verdicts=Verdicts(**checked(tree, "verdicts")),
        engine=Engine(**{key: tree[key] for key in ENGINE}),
        origins=origins,
    )


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; PmmoError, which repeats nothing of it, where it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # a safe loader
    except OSError as error:
        raise PmmoError(
            f"{path} cannot be read ({error.strerror}). Run this in the project's folder."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise PmmoError(f"{path} is not valid YAML: {where}{error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise PmmoError(
            f"{path} is not valid YAML: a character that is not UTF-8 or cannot be printed, a "
            "number or date that is none, or blocks in blocks without end"
        ) from None


def resolve_row(tree: dict, name: str, row: Any) -> tuple[Settings, Origins]:
    """A block of `variants` over the layers of its system and the scale."""
    where = f"variants.{name}"
    if not isinstance(row, dict):
        raise PmmoError(
            f"{where} is {briefly(row)}; it must be a block with label, system and settings"
        )
    check_keys(where, row, {"label", *tunable()}, required={"label", "system", "width"})
    check_value(f"{where}.system", row["system"], Rule(SYSTEMS))
    if not is_text(row["label"], LONGEST_LABEL):
        raise PmmoError(
            f"{where}.label is {briefly(row['label'])}; it must be a text of at most "
            f"{LONGEST_LABEL} printable characters"
        )
    own = {key: value for key, value in row.items() if key not in ("label", "system")}
    return resolve(tree, name, row["label"], row["system"], [(where, own)])


def resolve_experiment(tree: dict) -> tuple[Settings, Origins]:
    """The keys at the top of params.yaml that are not `auto` and that the system has."""
    check_value("system", tree["system"], Rule(SYSTEMS))
    own = {}
    for key, (rule, systems) in tunable().items():
        if key == "system" or tree[key] == AUTO:
            continue
        check_value(key, tree[key], IN_FILE.get(key, rule))
        if tree["system"] in systems or key not in FOLLOWING:
            own[key] = tree[key]
    return resolve(tree, EXPERIMENT, "System under study", tree["system"], [("", own)])


def resolve(
    tree: dict, name: str, label: str, system: System, own: list[tuple[str, dict]]
) -> tuple[Settings, Origins]:
    scale, known = tree["scale"], tunable()
    sizes = tree["scales"][scale]
    layers = [
        (f"systems.{system}", tree["systems"][system]),
        (f"scales.{scale}.all", sizes["all"]),
        (f"scales.{scale}.{system}", sizes.get(system) or {}),
        *own,
    ]
    values: dict[str, Any] = {}
    origins: Origins = {}
    for where, layer in layers:
        check_keys(where, layer, set(known) - {"system"}, required=set())
        for key, value in layer.items():
            rule, systems = known[key]
            path = f"{where}.{key}" if where else key
            if system not in systems:
                raise PmmoError(f"{path}: the system {system!r} has no such setting; remove it")
            check_value(path, value, IN_FILE.get(key, rule))
            values[key], origins[key] = value, path
    if values.get("width") in WIDTHS:
        origin = f"scales.{scale}.widths.{values['width']}"
        values["width"] = sizes["widths"][values["width"]]
        check_value(origin, values["width"], UNITS_RULE)
        origins["width"] += f" -> {origin}"
    if values.get("maxout_units") == "width":
        values["maxout_units"] = values["width"]
        origins["maxout_units"] += f" -> {origins['width']}"
    for key, (_, systems) in known.items():
        if key != "system" and system in systems and key not in values:
            raise PmmoError(f"systems.{system}.{key} is missing from params.yaml")
    return Settings(name=name, label=label, system=system, **values), origins


def resolve_data(tree: dict, folder: Path) -> DataSettings:
    """The `data` block of the project in `folder`, with `auto` taken from the scale."""
    block, default = tree["data"], tree["scales"][tree["scale"]]["data"]
    check_keys("data", block, set(DataSettings.__annotations__))
    source = default["source"] if block["source"] == AUTO else block["source"]
    check_source(source, folder)
    rows = default["rows"] if block["rows"] == AUTO else block["rows"]
    check_values("data", block | {"rows": rows}, DATA_RULES)
    check_pins(block["sha256"])
    check_mirrors(block["mirrors"])
    synthetic = source == "synthetic"
    return DataSettings(
        source=source,
        rows=rows if synthetic else None,
        seed=block["seed"] if synthetic else None,
        nan_text=block["nan_text"],
        memory_limit_gb=float(block["memory_limit_gb"]),
        allow_full_download=block["allow_full_download"],
        mirrors=block["mirrors"],
        sha256=dict(block["sha256"]),
    )


def check_source(source: Any, folder: Path) -> None:
    """PmmoError for what is no source, may hold a secret, or is deleted before it is read."""
    if not is_text(source, LONGEST_SOURCE):
        raise PmmoError(
            f"data.source is {kind_of(source)}; allowed: auto, synthetic, mmimdb, a path or a URL, "
            f"at most {LONGEST_SOURCE} printable characters"
        )
    if is_address(source):
        check_written("data.source", source)
    elif source not in ("synthetic", "mmimdb") and (out := out_at(local_path(source), folder)):
        raise PmmoError(
            f"data.source: {source} is, lies in or holds {out}, which the pipeline deletes and "
            "makes anew, `dvc exp run` even before it runs a stage. Put your file elsewhere, such "
            "as data/own.hdf5, and give that."
        )


def check_mirrors(mirrors: Any) -> None:
    """PmmoError for what is no list of addresses, or may hold a secret."""
    if not isinstance(mirrors, list) or len(mirrors) > MOST_MIRRORS:
        raise PmmoError(
            f"data.mirrors is {kind_of(mirrors)}; it must be a list of URLs, at most {MOST_MIRRORS}"
        )
    for number, mirror in enumerate(mirrors, 1):
        name = f"data.mirrors, entry {number},"
        if not is_text(mirror, LONGEST_SOURCE):
            raise PmmoError(
                f"{name} is {kind_of(mirror)}; it must be a URL in printable characters"
            )
        check_written(name, mirror)


def check_pins(pins: Any) -> None:
    """PmmoError for what is not a hash, or nothing, for each column."""
    check_keys("data.sha256", pins, set(HASHED_COLUMNS))
    for name, value in pins.items():
        if value != "" and not (isinstance(value, str) and SHA256.fullmatch(value)):
            raise PmmoError(
                f"data.sha256.{name} is {briefly(value)}; expected 64 hexadecimal digits in "
                "quotes, or ''"
            )


def is_text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and not hides(value) and 0 < len(value) <= longest


def kind_of(value: Any) -> str:
    """What a value is, without what it says: it may be secret."""
    if isinstance(value, str) and value:
        return "a text that is too long or cannot be printed"
    kinds: dict[type, str] = {list: "a list", dict: "a block"}
    return kinds.get(type(value)) or briefly(value)


def checked(tree: dict, name: str) -> dict:
    """A block of the reports."""
    check_keys(name, tree[name], set(REPORT_RULES[name]))
    check_values(name, tree[name], REPORT_RULES[name])
    return tree[name]


def check_values(where: str, block: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    for key, rule in rules.items():
        check_value(f"{where}.{key}", block[key], rule)


def check_blocks(tree: dict) -> None:
    """The blocks that are read by name further on, before anything is."""
    if not isinstance(tree["variants"], Mapping):
        raise PmmoError(f"variants is {briefly(tree['variants'])}; it must be a block of rows")
    for scale in SCALES:
        where, sizes, needed = f"scales.{scale}", tree["scales"][scale], {"data", "widths", "all"}
        check_keys(where, sizes, {*needed, *SYSTEMS}, required=needed)
        check_keys(f"{where}.data", sizes["data"], {"source", "rows"})
        check_keys(f"{where}.widths", sizes["widths"], set(WIDTHS))


def check_name(name: Any) -> None:
    if not isinstance(name, str) or not ROW_NAME.fullmatch(name):
        raise PmmoError(
            f"variants.{briefly(name)}: a row's name is made of a-z, 0-9 and - only, at most 64"
        )
    if name in TAKEN:
        raise PmmoError(f"variants.{name}: this name is taken; choose another")


def check_reference(name: Any, rows: Iterable[str]) -> None:
    """PmmoError unless the system under study is compared with one of the rows."""
    if name not in (names := list(rows)):
        raise PmmoError(f"reference is {briefly(name)}; it must be a row: {', '.join(names)}")


def check_keys(where: str, block: Any, allowed: set[str], required: set[str] | None = None) -> None:
    """PmmoError for a block that is no mapping, an unknown key, or a missing one."""
    place = where or "params.yaml"
    if not isinstance(block, Mapping):
        what = kind_of(block) if place.startswith("data") else briefly(block)
        raise PmmoError(f"{place} is {what}; it must be a block of settings")
    if unknown := sorted(set(map(str, block)) - allowed):
        raise PmmoError(
            f"{place} has an unknown key {briefly(unknown[0])}; allowed: "
            f"{', '.join(sorted(allowed))}"
        )
    if missing := sorted((allowed if required is None else required) - set(block)):
        raise PmmoError(f"{place} lacks the key {missing[0]!r}")
