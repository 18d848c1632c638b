"""Stage `fetch`: settings/data.json -> data/movies.hdf5."""

import json
from pathlib import Path

from pmmo.errors import PmmoError, stop
from pmmo.fetch import fetch


def main() -> None:
    settings = json.loads(Path("settings/data.json").read_text())
    settings.pop("nan_text", None)  # extract's
    fetch(Path("data/movies.hdf5"), **settings)


if __name__ == "__main__":
    try:
        main()
    except PmmoError as error:
        stop("fetch", error)
