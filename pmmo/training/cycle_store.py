"""Finished cycles on disk, under a key of everything that they depend on."""

import hashlib
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pmmo.config.settings import Settings
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
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(cycle.predictions, temporary / "predictions.safetensors")
    save_file(cycle.state, temporary / "state.safetensors")
    rest = {
        "summary": cycle.summary,
        "curves": cycle.curves,
        "seconds_per_epoch": cycle.seconds_per_epoch,
    }
    (temporary / "cycle.json").write_text(json.dumps(rest))
    (temporary / "machine.json").write_text(json.dumps(machine))
    temporary.rename(folder)


def load_cycle(folder: Path) -> Cycle:
    return Cycle(
        predictions=load_file(folder / "predictions.safetensors"),
        state=load_file(folder / "state.safetensors"),
        **json.loads((folder / "cycle.json").read_text()),
    )


def load_machines(store: Path) -> list[Machine]:
    """Where the finished cycles were trained, in order."""
    return [json.loads(path.read_text()) for path in sorted(store.glob("cycle-*/machine.json"))]
