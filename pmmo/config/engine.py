"""The engine: cycles run on this machine or on a Ray cluster. The engine changes no number.

It is therefore not part of a variant's settings. resolve writes it to a separate file. The training
stages read this file, but it is not one of their dependencies, so another engine retrains nothing.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pmmo.config.settings import Rule, check_value
from pmmo.core.errors import PmmoError, briefly

LOCAL, RAY = "local", "ray"
VARIABLE = "PMMO_ENGINE"  # environment variable; overrides params.yaml
ADDRESS = re.compile(r"(ray://)?([\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")
GPU_SHARE_RULE = Rule(kind=float, above=0.0, high=1.0)


@dataclass(frozen=True)
class Engine:
    """The keys `engine` and `gpu_share` of params.yaml."""

    engine: str = LOCAL  # local, ray, or the address of a Ray cluster
    gpu_share: float = 1.0  # share of a GPU per cycle on Ray

    def __post_init__(self) -> None:
        check_engine("engine", self.engine)
        check_value("gpu_share", self.gpu_share, GPU_SHARE_RULE)

    @property
    def address(self) -> str | None:
        """The address of the Ray cluster; `auto` for the one of this machine; None if local."""
        return {LOCAL: None, RAY: "auto"}.get(self.engine, self.engine)


def check_engine(name: str, value: object) -> None:
    """Raise PmmoError, with key or variable, value and allowed values, if it is invalid."""
    found = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if value not in (LOCAL, RAY) and not (found and int(found["port"]) < 2**16):
        raise PmmoError(
            f"{name} is {briefly(value)}; allowed: {LOCAL}, {RAY} (the cluster that this machine "
            "belongs to) or the address of a Ray cluster, host:port or ray://host:port"
        )


def load_engine(path: Path) -> Engine:
    """The engine of settings/engine.json, or of the environment variable if it is set."""
    block = json.loads(path.read_text(encoding="utf-8"))
    if VARIABLE in os.environ:
        check_engine(VARIABLE, os.environ[VARIABLE])
        block["engine"] = os.environ[VARIABLE]
    return Engine(**block)
