"""`python -m pmmo params [ROW]`: the resolved settings of a row and where each comes from.

`python -m pmmo grid [-j N]`: `dvc repro` with several training stages at once.
"""

import argparse
import sys
from dataclasses import asdict

from pmmo.errors import PmmoError
from pmmo.grid import run_grid
from pmmo.params import EXPERIMENT, load_params


def show_params(row: str) -> str:
    """One line per setting: its value and the key of params.yaml that it comes from."""
    params = load_params()
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


def jobs(text: str) -> int:
    """A type for argparse: a whole number from 1 up."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def add_grid(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("grid", help="dvc repro with several training stages at once")
    command.add_argument(
        "-j",
        "--jobs",
        type=jobs,
        default=2,
        metavar="N",
        help="training stages at a time (default: 2); how many: docs/scaling.md",
    )
    command.set_defaults(run=run_grid)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pmmo")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    params = commands.add_parser("params", help="resolved settings and where each comes from")
    params.add_argument("row", nargs="?", default=EXPERIMENT, help="default: system under study")
    params.set_defaults(run=show_params)
    add_grid(commands)
    options = vars(parser.parse_args())
    command, run = options.pop("command"), options.pop("run")
    try:
        print(run(**options))
    except PmmoError as error:
        sys.exit(f"{command}: {error}")


if __name__ == "__main__":
    main()
