"""Stage `experiment`: the system under study -> runs/experiment and its metrics for DVC."""

from pathlib import Path

from pmmo.config.engine import load_engine
from pmmo.core.stage import run
from pmmo.training.run_folder import write_experiment
from pmmo.training.variant import train_row


def main() -> None:
    run = Path("runs/experiment")
    engine = load_engine(Path("settings/engine.json"))
    train_row(Path("settings/experiment.json"), Path("data/tensors"), run, engine)
    write_experiment(run, Path("reports"))


if __name__ == "__main__":
    run("experiment", main)
