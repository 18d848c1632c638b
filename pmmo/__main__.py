"""`pmmo COMMAND` or `python -m pmmo COMMAND`: settings, curves, single files, many devices.

Each command is a function of its options that returns what to print, or that and an exit code. It
imports its own work, so that none waits for what it does not use.
"""

import argparse
import os
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pmmo import __version__
from pmmo.core.errors import PmmoError
from pmmo.core.names import SCALES
from pmmo.core.text import print_in_any_locale, to_nowhere


def show_params(row: str | None, scale: str | None = None, schema: bool = False) -> str:
    """One line per setting: its value and the key of params.yaml that it comes from."""
    if schema:
        from pmmo.commands.params_schema import params_schema

        return params_schema()
    from pmmo.params import EXPERIMENT, load_params

    params = load_params(scale=scale)
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


def watch_row(row: str | None) -> str:
    from pmmo.commands.watch import watch

    return watch(row)


def predict(model: Path, movies: Path, output: Path, **options: Any) -> str:
    # before torch is loaded: threads that spin while they wait slow each other down by a hundred
    # times on a machine that has other work
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from pmmo.own_movies.predict import predict_file

    return predict_file(model, movies, output, **options)


def import_movies(table: Path, output: Path, **options: Any) -> str:
    if find_spec("pyarrow") is None:
        raise PmmoError(
            "tables are read by pyarrow, which is missing: pip install -r requirements.txt"
        )
    from pmmo.own_movies.import_table import import_table

    return import_table(table, output, **options)


def embed_movies(table: Path, output: Path, **options: Any) -> str:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as for predict
    # no encoder asks a server for weights: what is needed is on the disk
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    from pmmo.embedding.embed import embed_table

    return embed_table(table, output, **options)


def grid(jobs: int | None) -> str:
    from pmmo.commands.grid import run_grid

    return run_grid(jobs)


def compare(first: str, second: str, **options: Any) -> tuple[str, int]:
    from pmmo.commands.compare import compare_places

    return compare_places(first, second, **options)


def completion(shell: str) -> str:
    from shtab import complete

    return complete(make_parser(), shell)


def split_shares(text: str) -> tuple[float, ...]:
    """A type for argparse: the shares of train, dev and test."""
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not three shares above 0 that add up to 1, such as 0.6,0.1,0.3"
        )
    return shares


def share(text: str) -> float:
    """A type for argparse: a number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is not a number between 0 and 1")
    return value


def whole_number(low: int, high: int = 2**63 - 1):
    """A type for argparse: a whole number from `low` up, and not beyond what is of use."""

    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r:.60} is not a whole number from {low} up")
        if int(text) > high:
            raise argparse.ArgumentTypeError(f"{text} is too large; at most {high}")
        return int(text)

    return convert


def add_path(command: argparse.ArgumentParser, *names: str, **options: Any) -> None:
    """An argument that is a path, which a shell completes."""
    from shtab import FILE

    command.add_argument(*names, type=Path, **options).complete = FILE  # type: ignore[attr-defined]


def add_params(commands) -> None:
    command = commands.add_parser("params", help="resolved settings and where each comes from")
    command.add_argument("row", nargs="?", help="default: system under study")
    command.add_argument("--scale", choices=SCALES, help="default: that of params.yaml")
    command.add_argument("--schema", action="store_true", help="the JSON Schema of params.yaml")
    command.set_defaults(run=show_params)


def add_watch(commands) -> None:
    command = commands.add_parser("watch", help="learning curves while a row trains")
    command.add_argument("row", nargs="?", help="default: the row that trains now")
    command.set_defaults(run=watch_row)


def add_predict(commands) -> None:
    command = commands.add_parser(
        "predict", help="a trained model's genres for the movies of an HDF5 file, as CSV"
    )
    add_path(command, "model", metavar="MODEL", help="folder of a run")
    add_path(
        command,
        "movies",
        metavar="FEATURES.hdf5",
        help="imdb_ids, features and vgg_features in the published layout (docs/own-data.md)",
    )
    add_path(
        command,
        "-o",
        "--output",
        default=Path("predictions.csv"),
        metavar="FILE",
        help="default: predictions.csv",
    )
    models = command.add_mutually_exclusive_group()
    models.add_argument(
        "--ensemble",
        action="store_true",
        default=None,
        help="the mean of the models of all cycles; default: what the run chose on dev",
    )
    models.add_argument(
        "--single",
        dest="ensemble",
        action="store_false",
        default=None,
        help="the model of the best cycle alone",
    )
    thresholds = command.add_mutually_exclusive_group()
    thresholds.add_argument(
        "--thresholds",
        dest="threshold",
        action="store_const",
        const="per_genre",
        help="a threshold per genre, fitted on dev; default: what the run chose on dev",
    )
    thresholds.add_argument(
        "--threshold", type=share, metavar="X", help="one threshold on the column probability"
    )
    shown = command.add_mutually_exclusive_group()
    shown.add_argument(
        "--calibrated",
        action="store_true",
        default=None,
        help="probabilities after a temperature fitted on dev; default: what the run chose on dev",
    )
    shown.add_argument(
        "--uncalibrated",
        dest="calibrated",
        action="store_false",
        default=None,
        help="probabilities as the model gives them",
    )
    command.add_argument(
        "--split",
        choices=("train", "dev", "test"),
        help="only these movies of a file that has splits; default: all movies of the file",
    )
    command.add_argument(
        "--order",
        choices=("file", "unsure"),
        default="file",
        help="as the movies stand in the file (default), or those first of which the model is "
        "least sure",
    )
    command.add_argument(
        "--samples",
        type=whole_number(0, 10_000),
        metavar="K",
        help="posterior draws of each model, behind the column sd; default: posterior_samples of "
        "the run",
    )
    command.add_argument(
        "--batch-norm",
        choices=("running", "evaluation_set"),
        default="running",
        help="normalise by the statistics that training kept (default), or by those of these "
        "movies together, as the run tested its models",
    )
    command.add_argument(
        "--batch-size",
        type=whole_number(1, 1_000_000),
        default=1024,
        metavar="B",
        help="movies in memory at once; changes no number but by rounding (default: 1024)",
    )
    command.set_defaults(run=predict)


def add_movie_options(command: argparse.ArgumentParser) -> None:
    """Ids, genres and splits of a table, for `import` and `embed`."""
    command.add_argument("--id", default="id", metavar="COLUMN", help="default: id")
    command.add_argument(
        "--genres",
        default="genres",
        metavar="COLUMN",
        help="default: genres; or columns of 0 and 1, called as the genres: Drama,Comedy,War",
    )
    command.add_argument(
        "--separator", default="|", metavar="TEXT", help="between genres in a cell (default: |)"
    )
    command.add_argument(
        "--split",
        dest="shares",
        type=split_shares,
        metavar="TRAIN,DEV,TEST",
        help="shares of a drawn split, for a table without a column 'split' (0.6,0.1,0.3)",
    )
    command.add_argument(
        "--split-by",
        choices=("genres", "random"),
        help="each genre in its share of each split, or without regard to genres (default: genres)",
    )
    command.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the drawn split (default: 0)"
    )
    command.add_argument(
        "--unlabelled",
        action="store_true",
        help="ids and vectors only: a file for predict, without genres or splits",
    )


def add_import(commands) -> None:
    command = commands.add_parser(
        "import", help="a table of your movies (CSV, Parquet) to HDF5 in the published layout"
    )
    add_path(command, "table", metavar="TABLE", help=".csv, .tsv (also .gz), .parquet")
    add_path(command, "output", metavar="OUTPUT.hdf5")
    add_movie_options(command)
    for name in ("text", "image"):
        command.add_argument(
            f"--{name}",
            default=name,
            metavar="NAME",
            help=f"columns NAME_0, NAME_1 …; a column of lists or of paths of .npy files; or "
            f"NAME.npy, one array for all movies (default: {name})",
        )
    command.set_defaults(run=import_movies)


def add_embed(commands) -> None:
    command = commands.add_parser(
        "embed", help="a table of plots and posters to HDF5 in the published layout, by encoders"
    )
    add_path(command, "table", metavar="TABLE", help=".csv, .tsv (also .gz), .parquet")
    add_path(command, "output", metavar="OUTPUT.hdf5")
    command.add_argument(
        "--text-encoder",
        required=True,
        metavar="KIND:WHERE",
        help="word2vec:FILE, gensim:FILE, spacy:NAME or sentence-transformers:FOLDER",
    )
    command.add_argument(
        "--image-encoder",
        required=True,
        metavar="KIND:NAME:WEIGHTS",
        help="timm:NAME:FILE or torchvision:NAME:FILE",
    )
    for name, default in (("text", "plot"), ("image", "poster")):
        command.add_argument(
            f"--{name}-column",
            default=default,
            metavar="COLUMN",
            help=f"of {'plots' if name == 'text' else 'paths of images'} (default: {default})",
        )
    add_movie_options(command)
    command.add_argument(
        "--on-bad",
        choices=("error", "zeros", "drop"),
        default="error",
        help="a plot or poster that cannot be encoded ends the command (error, the default), "
        "becomes no text or an image of zeros, or has its movie left out",
    )
    command.add_argument(
        "--batch-size",
        type=whole_number(1, 100_000),
        default=64,
        metavar="B",
        help="movies that are encoded at once (default: 64)",
    )
    command.set_defaults(run=embed_movies)


def add_grid(commands) -> None:
    command = commands.add_parser("grid", help="dvc repro with several training stages at once")
    command.add_argument(
        "-j",
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="training stages at a time, which share the cores (default: one per core, up to 4)",
    )
    command.set_defaults(run=grid)


def add_compare(commands) -> None:
    command = commands.add_parser(
        "compare", help="two results: differences of the F-scores, with intervals and verdicts"
    )
    for name, default in (("first", "HEAD"), ("second", "workspace")):
        command.add_argument(
            name,
            nargs="?",
            default=default,
            metavar=name.upper(),
            help="a row (gmu), an experiment or revision (its system under study), a row of a "
            f"revision (HEAD:gmu), or workspace; default: {default}",
        )
    add_path(command, "--csv", metavar="FILE", help="write the table as CSV, too")
    command.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with 0 if the weighted F1 of SECOND is higher, 4 if lower, 3 otherwise",
    )
    command.set_defaults(run=compare)


def add_completion(commands) -> None:
    from shtab import SUPPORTED_SHELLS

    command = commands.add_parser("completion", help="what makes a shell complete `pmmo`")
    command.add_argument("shell", choices=SUPPORTED_SHELLS)
    command.set_defaults(run=completion)


COMMANDS = (
    add_params,
    add_watch,
    add_predict,
    add_import,
    add_embed,
    add_grid,
    add_compare,
    add_completion,
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pmmo")
    parser.add_argument("--version", action="version", version=f"pmmo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in COMMANDS:
        add(commands)
    return parser


def main() -> None:
    if sys.stderr is None:  # closed by the caller: progress and messages go nowhere
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    print_in_any_locale()
    command = "pmmo"
    try:
        options = vars(make_parser().parse_args())
        command, run = options.pop("command"), options.pop("run")
        said = run(**options)
    except PmmoError as error:
        sys.exit(f"{command}: {error.lines()}")
    except ModuleNotFoundError as error:
        sys.exit(
            f"{command}: {sys.executable} lacks {error.name}. Run `source .venv/bin/activate` "
            "first, or `pip install -r requirements.txt` into this Python."
        )
    except KeyboardInterrupt:
        sys.exit(f"{command}: interrupted; nothing was written")
    text, code = said if isinstance(said, tuple) else (said, 0)
    say(command, text)
    if code:
        sys.exit(code)


def say(command: str, text: str) -> None:
    """Print it; where nobody reads any more (`| head`), that is no error."""
    try:
        print(text, flush=True)
    except OSError as error:
        to_nowhere(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            sys.exit(f"{command}: is done, but its words cannot be printed ({error.strerror})")
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where the caller closed it
        try:
            stream.flush()
        except OSError:
            to_nowhere(stream)


if __name__ == "__main__":
    main()
