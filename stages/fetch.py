"""Stage `fetch`: settings/data.json -> data/fetched/movies.hdf5, and the sha256 of its columns."""

import json
from pathlib import Path

from pmmo.core.stage import run
from pmmo.core.writing import write_json
from pmmo.fetching.fetch import fetch


def main() -> None:
    settings = json.loads(Path("settings/data.json").read_text(encoding="utf-8"))
    settings.pop("nan_text", None)  # extract's
    provenance = fetch(Path("data/fetched/movies.hdf5"), **settings)
    write_json(Path("data/fetched/columns.json"), {"sha256": provenance["sha256"]})


if __name__ == "__main__":
    run("fetch", main)
