"""`python -m pmmo COMMAND`: what is set, and how training goes.

params [ROW]  the resolved settings of a row and where each comes from
watch [ROW]   learning curves in the terminal, while the row trains
"""

import argparse
import sys
from dataclasses import asdict

from pmmo.errors import PmmoError
from pmmo.params import EXPERIMENT, load_params
from pmmo.watch import watch


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pmmo")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    params = commands.add_parser("params", help="resolved settings and where each comes from")
    params.add_argument("row", nargs="?", default=EXPERIMENT, help="default: system under study")
    live = commands.add_parser("watch", help="learning curves in the terminal, while a row trains")
    live.add_argument("row", nargs="?", help="default: the row that trains now")
    params.set_defaults(run=lambda row: print(show_params(row)))
    live.set_defaults(run=watch)
    given = parser.parse_args()
    given.run(given.row)


if __name__ == "__main__":
    try:
        main()
    except PmmoError as error:
        sys.exit(f"pmmo: {error}")
    except KeyboardInterrupt:
        print()
