"""Stage `experiment`: the system under study -> runs/experiment and its metrics for DVC."""

import sys
from pathlib import Path

from pmmo.engine import load_engine
from pmmo.errors import PmmoError, stop
from pmmo.runs import train_row, write_experiment


def main() -> None:
    run = Path("runs/experiment")
    engine = load_engine(Path("settings/engine.json"))
    train_row(Path("settings/experiment.json"), Path("data/tensors"), run, engine)
    write_experiment(run, Path("reports"))


if __name__ == "__main__":
    try:
        main()
    except PmmoError as error:
        stop("experiment", error)
    except KeyboardInterrupt:
        sys.exit(
            "experiment: interrupted; finished cycles are kept, `dvc repro` goes on from there"
        )
