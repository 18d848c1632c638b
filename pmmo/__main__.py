"""`python -m pmmo COMMAND`: what is done with single files, beside the pipeline.

Each command is a function of its options that returns what to print. It imports its own work, so
that none waits for what it does not use.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from pmmo.errors import PmmoError


def show_params(row: str | None) -> str:
    """One line per setting: its value and the key of params.yaml that it comes from."""
    from pmmo.params import EXPERIMENT, load_params

    params = load_params()
    row = row or EXPERIMENT
    rows = params.rows | {EXPERIMENT: params.experiment}
    if row not in rows:
        raise PmmoError(f"there is no row {row!r} in params.yaml; rows: {', '.join(rows)}")
    values = {key: value for key, value in asdict(rows[row]).items() if value is not None}
    lines = [f"{rows[row].label} ({row})"]
    for key, value in values.items():
        if key not in ("name", "label"):
            shown = str(value).lower() if isinstance(value, bool) else value
            lines.append(f"  {key:26} {shown!s:14} {params.origins[row].get(key, key)}")
    return "\n".join(lines)


def predict(model: Path, movies: Path, output: Path, **options: object) -> str:
    from pmmo.prediction import predict_file

    return predict_file(model, movies, output, **options)


def whole_number(low: int):
    """A type for argparse: a whole number from `low` up."""

    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} up")
        return int(text)

    return convert


def add_params(commands) -> None:
    command = commands.add_parser("params", help="resolved settings and where each comes from")
    command.add_argument("row", nargs="?", help="default: system under study")
    command.set_defaults(run=show_params)


def add_predict(commands) -> None:
    command = commands.add_parser(
        "predict", help="a trained model's genres for the movies of an HDF5 file, as CSV"
    )
    command.add_argument("model", metavar="MODEL", type=Path, help="folder of a run")
    command.add_argument(
        "movies",
        metavar="FEATURES.hdf5",
        type=Path,
        help="imdb_ids, features and vgg_features in the published layout (docs/own-data.md)",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("predictions.csv"),
        metavar="FILE",
        help="default: predictions.csv",
    )
    command.add_argument(
        "--split",
        choices=("train", "dev", "test"),
        help="only these movies of a file that has splits; default: all movies of the file",
    )
    command.add_argument(
        "--samples",
        type=whole_number(0),
        metavar="K",
        help="posterior draws behind the column sd; default: posterior_samples of the run",
    )
    command.add_argument(
        "--batch-norm",
        choices=("evaluation_set", "running"),
        help="normalise by the statistics of these movies, or by those that training kept; "
        "default: batch_norm_eval of the run",
    )
    command.add_argument(
        "--batch-size",
        type=whole_number(1),
        default=1024,
        metavar="B",
        help="movies in memory at once; changes no number but by rounding (default: 1024)",
    )
    command.set_defaults(run=predict)


COMMANDS = (add_params, add_predict)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pmmo")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in COMMANDS:
        add(commands)
    options = vars(parser.parse_args())
    command, run = options.pop("command"), options.pop("run")
    try:
        print(run(**options))
    except PmmoError as error:
        sys.exit(f"{command}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{command}: interrupted; nothing was written")


if __name__ == "__main__":
    main()
