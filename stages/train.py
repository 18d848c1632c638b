"""Stage `train@<row>`: settings/<row>.json and data/tensors -> runs/rows/<row>."""

import sys
from pathlib import Path

from pmmo.config.engine import load_engine
from pmmo.core.inputs import Inputs
from pmmo.core.stage import run
from pmmo.training.variant import train_row


def main(row: str) -> None:
    inputs = Inputs.of_stage(f"train@{row}")
    engine = load_engine(Path("settings/engine.json"))
    settings, output = Path(f"settings/{row}.json"), Path(f"runs/rows/{row}")
    train_row(settings, Path("data/tensors"), output, engine, inputs)


if __name__ == "__main__":
    run("train", main, *sys.argv[1:])
