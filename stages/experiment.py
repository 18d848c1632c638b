"""Stage `experiment`: the system under study -> runs/experiment and its metrics for DVC."""

from pathlib import Path

from pmmo.config.engine import load_engine
from pmmo.core.inputs import Inputs
from pmmo.core.stage import run
from pmmo.training.run_folder import write_experiment
from pmmo.training.variant import train_row


def main() -> None:
    inputs = Inputs.of_stage("experiment")
    engine = load_engine(Path("settings/engine.json"))
    settings, output = Path("settings/experiment.json"), Path("runs/experiment")
    train_row(settings, Path("data/tensors"), output, engine, inputs)
    write_experiment(output, Path("reports"))


if __name__ == "__main__":
    run("experiment", main)
