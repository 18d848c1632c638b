"""Finished cycles on disk, under a key of everything that they depend on.

`.work/cycles/<key>/cycle-<number>/` holds the files of a cycle and `hashes.json`: the key, the
number and the sha256 of each file. What does not agree with it is no cycle of that row.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.core.writing import growing_folder, write_bytes
from pmmo.training.hardware import Machine
from pmmo.training.loop import Cycle

TENSORS = ("predictions.safetensors", "state.safetensors", "protocols.safetensors")
FILES = (*TENSORS, "cycle.json", "machine.json")
HASHES = "hashes.json"


def cycle_key(settings: Settings, data: Path) -> str:
    """Hash of the settings, the tensor files, the code that is loaded and torch's version."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    digest.update(torch.__version__.encode())
    for path in sorted(data.iterdir()):
        digest.update(bytes.fromhex(sha256(path)))
    for name in sorted(n for n in sys.modules if n.split(".")[0] == "pmmo"):
        digest.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return digest.hexdigest()[:16]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_cycle(cycle: Cycle, machine: Machine, folder: Path) -> None:
    """Write a finished cycle to `folder`, which appears whole or not at all.

    `machine` describes where it was trained: cycles of one row may come from several. Raises
    PmmoError naming the file that cannot be written.
    """
    rest = {
        "summary": cycle.summary,
        "curves": cycle.curves,
        "seconds_per_epoch": cycle.seconds_per_epoch,
    }
    contents = (
        save(cycle.predictions),
        save(cycle.state),
        save(cycle.protocols),
        json.dumps(rest).encode(),
        json.dumps(machine).encode(),
    )
    hashes = {
        name: hashlib.sha256(content).hexdigest()
        for name, content in zip(FILES, contents, strict=True)
    }
    label = {**name_of(folder), "sha256": hashes}
    with growing_folder(folder) as temporary:
        for name, content in zip(FILES, contents, strict=True):
            write_bytes(temporary / name, content)
        write_bytes(temporary / HASHES, json.dumps(label).encode())


def name_of(folder: Path) -> dict[str, str]:
    """What a cycle is stored as: copied elsewhere, it is not taken for that other one."""
    return {"key": folder.parent.name, "cycle": folder.name}


def fault_of(folder: Path) -> str | None:
    """What is wrong with a stored cycle; None if it is as it was written."""
    try:
        label = json.loads((folder / HASHES).read_bytes())
        if {name: label[name] for name in ("key", "cycle")} != name_of(folder):
            return "it is of another row or cycle"
        changed = [name for name in FILES if sha256(folder / name) != label["sha256"][name]]
        return f"{changed[0]} is not as it was written" if changed else None
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError):
        return f"{HASHES} is not as it was written"


def load_cycle(folder: Path) -> Cycle:
    """A stored cycle; PmmoError if it is not as it was written."""
    if fault := fault_of(folder):
        raise PmmoError(f"{folder}: {fault}, though it was a moment ago; run again")
    predictions, state, protocols = (load_file(folder / name) for name in TENSORS)
    return Cycle(
        predictions=predictions,
        state=state,
        protocols=protocols,
        **json.loads((folder / "cycle.json").read_bytes()),
    )


def load_machines(store: Path) -> list[Machine]:
    """Where the finished cycles were trained, in order."""
    paths = store.glob("cycle-*/machine.json")
    return [json.loads(path.read_bytes()) for path in sorted(paths)]
