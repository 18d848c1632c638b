"""The resolved settings of one variant: a frozen dataclass that rejects invalid values.

`pmmo.params` resolves params.yaml into them; the training stage reads them back from JSON.
"""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pmmo.core.errors import PmmoError, briefly
from pmmo.core.writing import write_text

System = Literal["pmmo", "mmo", "gmu", "mlp", "released"]
Elbo = Literal["v1", "v2", "kl"]
Penalty = Literal["none", "l1", "l2"]
Precision = Literal["float32", "tf32", "bf16"]

SYSTEMS = get_args(System)
ELBOS = get_args(Elbo)
PENALTIES = get_args(Penalty)
PRECISIONS = get_args(Precision)
SMALLEST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # 32-bit floats; beyond: 0, infinity
UNITS, SEEDS = 32_768, 2**31 - 1  # hidden units of a layer; seeds, which cycles count up from


@dataclass(frozen=True)
class Rule:
    """The allowed values: one of `choices`, or a number of `kind` within the bounds."""

    choices: tuple[Any, ...] = ()
    kind: type | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None  # exclusive lower bound
    below: float | None = None  # exclusive upper bound

    def allows(self, value: Any) -> bool:
        for choice in self.choices:
            if type(value) is type(choice) and value == choice:
                return True
        if self.kind is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.kind is int and not isinstance(value, int):
            return False
        return (
            (self.kind is int or held(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = ["true" if c is True else "false" if c is False else str(c) for c in self.choices]
        if self.kind is not None:
            number = "a whole number" if self.kind is int else "a number"
            bounds = [
                f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
                for sign, bound in (
                    (">=", self.low),
                    (">", self.above),
                    ("<=", self.high),
                    ("<", self.below),
                )
                if bound is not None
            ]
            words.append(" ".join([number, " and ".join(bounds)]).strip())
        return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1]


def held(value: float) -> bool:
    """Whether a 32-bit float is near the value: neither 0, unless it is, nor infinite."""
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


ALL = SYSTEMS
FUSED = ("pmmo", "mmo")  # systems with two modules and two objectives
GATED = ("pmmo", "mmo", "gmu")
OURS = (*GATED, "mlp")
TRUTH = (True, False)


def setting(rule: Rule, systems: tuple[str, ...]) -> Any:
    """A field of the named systems; it is None for all others."""
    return field(default=None, metadata={"rule": rule, "systems": systems})


@dataclass(frozen=True)
class Settings:
    """A variant or the system under study. params.yaml documents every field."""

    name: str
    label: str
    system: System = field(metadata={"rule": Rule(SYSTEMS), "systems": ALL})
    width: int = setting(Rule(kind=int, low=1, high=UNITS), ALL)
    inputs: str = setting(Rule(("text", "image", "both")), ("mlp",))
    # module A and its objective
    elbo: Elbo = setting(Rule(ELBOS), ("pmmo",))
    penalty: Penalty = setting(Rule(PENALTIES), ("pmmo",))
    gate_input: str = setting(Rule(("outputs", "inputs")), GATED)
    readout: str = setting(Rule(("own", "classifier")), FUSED)
    classifier_gradient: str = setting(Rule(("flows", "detached")), FUSED)
    kl_weight: Literal["exact", "per_weight"] | float = setting(
        Rule(("exact", "per_weight"), float, low=0.0), ("pmmo",)
    )
    anneal_from: float = setting(Rule(kind=float, low=0.0, high=1.0), ("pmmo",))
    penalty_weight: float = setting(Rule(kind=float, low=0.0), ("pmmo",))
    penalty_on: str = setting(Rule(("loc", "loc_and_scale")), ("pmmo",))
    penalty_reduction: str = setting(Rule(("mean", "sum")), ("pmmo",))
    prior: str = setting(Rule(("fixed", "learned")), ("pmmo",))
    prior_loc: float = setting(Rule(kind=float), ("pmmo",))
    prior_scale: float = setting(Rule(kind=float, above=0.0), ("pmmo",))
    prior_scale_is: str = setting(Rule(("scale", "variance")), ("pmmo",))
    guide_start: str = setting(Rule(("fan_in", "prior")), ("pmmo",))
    guide_scale: float = setting(Rule(kind=float, above=0.0), ("pmmo",))
    prediction: str = setting(Rule(("mean", "samples")), ("pmmo",))
    posterior_samples: int = setting(Rule(kind=int, low=1, high=10_000), ("pmmo",))
    # the released code
    inference: str = setting(Rule(("elbo", "squared_weights", "none")), ("released",))
    gradient_norm: float = setting(Rule(kind=float, above=0.0), ("released",))
    # module C
    classifier_order: str = setting(Rule(("gmu", "released")), OURS)
    maxout_layers: int = setting(Rule(kind=int, low=1, high=64), OURS)
    maxout_pieces: int = setting(Rule(kind=int, low=2, high=64), ALL)
    maxout_units: int = setting(Rule(kind=int, low=1, high=UNITS), ALL)
    dropout: float = setting(Rule(kind=float, low=0.0, below=1.0), ALL)
    batch_norm: bool = setting(Rule(TRUTH), ALL)
    batch_norm_eval: str = setting(Rule(("evaluation_set", "running")), ALL)
    max_norm: Literal["none"] | float = setting(Rule(("none",), float, above=0.0), OURS)
    bce: str = setting(Rule(("mean", "sum")), ALL)
    # optimisation and evaluation
    learning_rate: float = setting(Rule(kind=float, above=0.0), ALL)
    classifier_learning_rate: float = setting(
        Rule(kind=float, above=0.0), ("pmmo", "mmo", "released")
    )
    weight_decay: float = setting(Rule(kind=float, low=0.0), ("pmmo", "mmo", "released"))
    train_on: str = setting(Rule(("train", "train+dev")), ALL)
    kept_epoch: str = setting(Rule(("best", "last")), ALL)
    epoch_predictions: bool = setting(Rule(TRUTH), ALL)
    threshold: float = setting(Rule(kind=float, above=0.0, below=1.0), ALL)
    epochs: int = setting(Rule(kind=int, low=1, high=100_000), ALL)
    # from 3, so that a batch has two or more
    batch_size: int = setting(Rule(kind=int, low=3, high=10_000_000), ALL)
    cycles: int = setting(Rule(kind=int, low=1, high=1_000), ALL)
    seed: int = setting(Rule(kind=int, low=0, high=SEEDS), ALL)
    device: str = setting(Rule(("auto", "cpu", "cuda")), ALL)
    precision: Precision = setting(Rule(PRECISIONS), OURS)
    cycles_together: Literal["auto"] | int = setting(Rule(("auto",), int, low=1, high=1_000), OURS)
    compile: bool = setting(Rule(TRUTH), ("pmmo",))

    def __post_init__(self) -> None:
        check_value("system", self.system, Rule(SYSTEMS))
        for item in fields(self):
            if "rule" not in item.metadata:
                continue
            value = getattr(self, item.name)
            if self.system in item.metadata["systems"]:
                check_value(item.name, value, item.metadata["rule"])
            elif value is not None:
                raise PmmoError(
                    f"{item.name} = {value!r}: the system {self.system!r} has no such setting"
                )
        if self.train_on == "train+dev" and self.kept_epoch == "best":
            raise PmmoError(
                f"{self.name}: train_on is 'train+dev', and movies that are trained on choose no "
                "epoch; set kept_epoch to last"
            )


def check_value(name: str, value: Any, rule: Rule) -> None:
    """Raise PmmoError, with parameter, value and allowed values, if the value is invalid."""
    if not rule.allows(value):
        note = " (as a 32-bit float)" if isinstance(value, float) and not held(value) else ""
        raise PmmoError(f"{name} is {briefly(value)}; allowed: {rule}{note}")


def tunable() -> dict[str, tuple[Rule, tuple[str, ...]]]:
    """Setting -> (rule, systems that have it), in the order of the dataclass."""
    return {
        f.name: (f.metadata["rule"], f.metadata["systems"])
        for f in fields(Settings)
        if "rule" in f.metadata
    }


def save_settings(settings: Settings, path: Path) -> None:
    write_text(path, json.dumps(asdict(settings), indent=2))


def load_settings(path: Path) -> Settings:
    """Settings from JSON; PmmoError if a key is missing or unknown."""
    block = json.loads(path.read_text(encoding="utf-8"))
    known = {f.name for f in fields(Settings)}
    required = {f.name for f in fields(Settings) if f.default is MISSING}
    if unknown := set(block) - known:
        raise PmmoError(f"{path}: unknown settings {sorted(unknown)}; run `dvc repro resolve`")
    if missing := required - set(block):
        raise PmmoError(f"{path}: settings {sorted(missing)} are missing; run `dvc repro resolve`")
    return Settings(**block)
