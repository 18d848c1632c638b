"""Stage `train@<row>`: settings/<row>.json and data/tensors -> runs/rows/<row>."""

import sys
from pathlib import Path

from pmmo.engine import load_engine
from pmmo.errors import PmmoError, stop
from pmmo.runs import train_row


def main(row: str) -> None:
    engine = load_engine(Path("settings/engine.json"))
    train_row(Path(f"settings/{row}.json"), Path("data/tensors"), Path(f"runs/rows/{row}"), engine)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except PmmoError as error:
        stop("train", error)
    except KeyboardInterrupt:
        sys.exit("train: interrupted; finished cycles are kept, `dvc repro` goes on from there")
