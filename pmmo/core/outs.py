"""What the pipeline makes, and so deletes or replaces: no place for a file of the user's."""

import os
from contextlib import suppress
from pathlib import Path

import yaml

from pmmo.core.errors import PmmoError

PROJECT = Path(__file__).parents[2]


def outs(folder: Path) -> list[Path]:
    """What the stages of `folder`/dvc.yaml make, and `.work`, which they empty; rows together."""
    pipeline, found = folder / "dvc.yaml", [".work"]
    text = pipeline.read_text(encoding="utf-8") if pipeline.exists() else "stages: {}"
    for stage in yaml.safe_load(text)["stages"].values():
        stage = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            found += [
                item if isinstance(item, str) else next(iter(item)) for item in stage.get(kind, [])
            ]
    return [folder / name.partition("/${")[0] for name in found]


def out_at(path: Path, folder: Path) -> Path | None:
    """The out of the pipeline in `folder` that `path` is, lies in or holds, wherever links lead."""
    for out in outs(folder):
        for at in places(path):
            for taken in places(out):
                if at.is_relative_to(taken) or taken.is_relative_to(at):
                    return out
    return None


def places(path: Path) -> set[Path]:
    """Where a path leads, and where it lies itself if it is a link; folders resolved."""
    return {Path(os.path.realpath(path)), Path(os.path.realpath(path.parent)) / path.name}


def check_output(output: Path, *inputs: Path) -> None:
    """PmmoError where a file at `output` would replace an input, or what the pipeline makes."""
    for path in inputs:
        with suppress(OSError, ValueError):  # one of the two is not there
            if output.samefile(path):
                raise PmmoError(f"{output}: is read by this command. Give the output another name.")
    if out := out_at(output, PROJECT):
        raise PmmoError(
            f"{output}: is, lies in or holds {out}, which belongs to the pipeline. Give another "
            "name, such as data/own.hdf5 or predictions.csv."
        )
