"""What a stage reads must be the same at its end as at its start.

DVC records the hashes of a stage's inputs after the stage has run: without this check, code, data
or parameters that were edited meanwhile would be recorded as what the results were made of.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from pmmo.core.errors import PmmoError

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
IGNORED = ("__pycache__", "*.pyc", "*.tmp")  # as .dvcignore has it


@dataclass(frozen=True)
class Inputs:
    """The files of some paths with the hashes of what they held."""

    paths: tuple[Path, ...]
    digests: Mapping[Path, str]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Inputs":
        """Take down what the files, and the files of the folders, hold now."""
        paths = tuple(paths)
        return cls(paths, {file: digest(file) for file in files(paths)})

    @classmethod
    def of_stage(cls, stage: str) -> "Inputs":
        """Of what `dvc.yaml` declares for a stage, `name` or `name@row`, and of `params.yaml`.

        `params.yaml` counts for every stage: an experiment's commit holds it as it is in the end.
        Raises PmmoError if code was edited since this process began to import it.
        """
        inputs = cls.of([*declared(stage), PARAMS])
        started = psutil.Process().create_time()
        code = [file for file in inputs.digests if file.suffix == ".py"]
        refuse(file for file in code if started <= file.stat().st_mtime <= time.time())
        return inputs

    def check(self) -> None:
        """PmmoError naming what is not as it was."""
        now = Inputs.of(self.paths).digests
        refuse(file for file in {**self.digests, **now} if self.digests.get(file) != now.get(file))


def declared(stage: str) -> list[Path]:
    """The deps of a stage and the files of its params; none in a folder without a pipeline."""
    if not PIPELINE.exists():
        return []
    name, _, row = stage.partition("@")
    block = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"].get(name, {})
    block = block.get("do", block)
    entries = block.get("params", [])  # a text names a key of params.yaml, which counts anyway
    params = [file for entry in entries if isinstance(entry, dict) for file in entry]
    deps = [*block.get("deps", []), *params]
    return [Path(re.sub(r"\$\{(key|reference)\}", row, dep)) for dep in deps]


def files(paths: Iterable[Path]) -> list[Path]:
    """The paths that are files, and all files in those that are folders."""
    found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sorted(
        file for file in set(found) if file.is_file() and not any(map(file.match, IGNORED))
    )


def digest(file: Path) -> str:
    """The hash of a file; of `params.yaml` the hash of its values: comments change no result."""
    with file.open("rb") as content:
        if file == PARAMS:
            try:
                values = json.dumps(yaml.safe_load(content), sort_keys=True, default=str)
                return hashlib.sha256(values.encode()).hexdigest()
            except (yaml.YAMLError, ValueError, TypeError):  # no YAML yet: an edit under way
                content.seek(0)
        return hashlib.file_digest(content, "sha256").hexdigest()


def refuse(changed: Iterable[Path]) -> None:
    names = [file.as_posix() for file in changed]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise PmmoError(
            f"{', '.join(names[:3])}{more}: changed while this stage ran, so that nothing is "
            "recorded of it. Run again; or take the change back first, to go on with the cycles "
            "that are finished."
        )
