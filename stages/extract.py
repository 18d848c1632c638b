"""Stage `extract`: data/fetched/movies.hdf5 -> data/tensors."""

import json
from pathlib import Path

from pmmo.core.stage import run
from pmmo.data.extract import extract


def main() -> None:
    settings = json.loads(Path("settings/data.json").read_text(encoding="utf-8"))
    extract(
        Path("data/fetched/movies.hdf5"),
        Path("data/tensors"),
        nan_text=settings["nan_text"],
        memory_limit_gb=settings["memory_limit_gb"],
    )


if __name__ == "__main__":
    run("extract", main)
