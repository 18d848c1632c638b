"""Stage `train@<row>`: settings/<row>.json and data/tensors -> runs/rows/<row>."""

import sys
from pathlib import Path

from pmmo.errors import PmmoError, stop
from pmmo.runs import train_row


def main(row: str) -> None:
    train_row(Path(f"settings/{row}.json"), Path("data/tensors"), Path(f"runs/rows/{row}"))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except PmmoError as error:
        stop("train", error)
    except KeyboardInterrupt:
        sys.exit("train: interrupted; finished cycles are kept, `dvc repro` goes on from there")
