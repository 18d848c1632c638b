"""Finished cycles on disk, under a key of everything that they depend on."""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pmmo.config.settings import Settings
from pmmo.core.writing import growing_folder
from pmmo.training.hardware import Machine
from pmmo.training.loop import Cycle


def cycle_key(settings: Settings, data: Path) -> str:
    """Hash of the settings, the tensor files, the code that is loaded and torch's version."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    digest.update(torch.__version__.encode())
    for path in sorted(data.iterdir()):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for name in sorted(n for n in sys.modules if n.split(".")[0] == "pmmo"):
        digest.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return digest.hexdigest()[:16]


def save_cycle(cycle: Cycle, machine: Machine, folder: Path) -> None:
    """Write a finished cycle to `folder`, which appears whole or not at all.

    `machine` describes where it was trained: cycles of one row may come from several.
    """
    rest = {
        "summary": cycle.summary,
        "curves": cycle.curves,
        "seconds_per_epoch": cycle.seconds_per_epoch,
    }
    with growing_folder(folder) as new:
        save_file(cycle.predictions, new / "predictions.safetensors")
        save_file(cycle.state, new / "state.safetensors")
        (new / "cycle.json").write_text(json.dumps(rest), encoding="utf-8")
        (new / "machine.json").write_text(json.dumps(machine), encoding="utf-8")


def load_cycle(folder: Path) -> Cycle:
    return Cycle(
        predictions=load_file(folder / "predictions.safetensors"),
        state=load_file(folder / "state.safetensors"),
        **json.loads((folder / "cycle.json").read_text(encoding="utf-8")),
    )


def load_machines(store: Path) -> list[Machine]:
    """Where the finished cycles were trained, in order."""
    paths = sorted(store.glob("cycle-*/machine.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
