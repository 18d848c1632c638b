"""Stage `train@<row>`: settings/<row>.json and data/tensors -> runs/rows/<row>."""

import sys
from pathlib import Path

from pmmo.config.engine import load_engine
from pmmo.core.stage import run
from pmmo.training.variant import train_row


def main(row: str) -> None:
    engine = load_engine(Path("settings/engine.json"))
    train_row(Path(f"settings/{row}.json"), Path("data/tensors"), Path(f"runs/rows/{row}"), engine)


if __name__ == "__main__":
    run("train", main, *sys.argv[1:])
