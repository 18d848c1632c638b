"""Compare two results: `pmmo compare [A] [B]`. Each is a row here, or a row of a revision.

A result of a revision, or of an experiment of DVC, is read from DVC's cache: nothing is checked
out. DVC finds it by the hashes in that revision's dvc.lock.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from pmmo.analysis.run_reader import read_movies, read_run
from pmmo.core.errors import PmmoError
from pmmo.core.names import EXPERIMENT
from pmmo.core.writing import check_writable, write_text
from pmmo.pairs.differences import HIGHER, LOWER, Side, compare
from pmmo.pairs.words import frame, in_words
from pmmo.params import load_params

WORKSPACE = "workspace"  # what DVC calls the files here
TENSORS = Path("data/tensors")
OF_MOVIES = ("movies.json", "genres.safetensors")
MODEL = "model."  # files of a run that no comparison reads
CODES = {HIGHER: 0, LOWER: 4}  # exit codes; all other verdicts:
NOT_HIGHER = 3


class Place(NamedTuple):
    """A row of a revision, or here (None)."""

    revision: str | None
    row: str

    @property
    def folder(self) -> Path:
        return Path("runs") / self.row if self.row == EXPERIMENT else Path("runs/rows") / self.row


def compare_places(first: str, second: str, csv: Path | None, exit_code: bool) -> tuple[str, int]:
    """The comparison in words, and 0 or, with `exit_code`, a number for the verdict.

    Raises PmmoError if a result is not there or if the two cannot be paired.
    """
    params = load_params()
    if csv is not None:
        check_writable(csv)
    rows = list(params.rows)
    with opened(first, rows) as one, opened(second, rows) as other:
        facts = compare(one, other, **asdict(params.intervals), margin=params.verdicts.equivalent)
    if csv is not None:
        write_text(csv, frame(facts).to_csv(index=False, float_format="%.6g"))
    code = CODES.get(facts["scores"]["weighted"]["verdict"], NOT_HIGHER)
    return in_words(facts), code if exit_code else 0


def parse(text: str, rows: list[str]) -> Place:
    """`ROW`, `REVISION`, `REVISION:ROW` or `workspace`; a row comes before a revision."""
    revision, colon, row = text.rpartition(":")
    if colon:
        return Place(None if revision in ("", WORKSPACE) else revision, row or EXPERIMENT)
    if text == WORKSPACE:
        return Place(None, EXPERIMENT)
    return Place(None, text) if text in (*rows, EXPERIMENT) else Place(text, EXPERIMENT)


@contextmanager
def opened(text: str, rows: list[str]) -> Iterator[Side]:
    """The run and its movies, read from here or, where they are not here, from DVC's cache."""
    place = parse(text, rows)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path()
        if place.revision is not None or not (place.folder.exists() and TENSORS.exists()):
            root = Path(temporary)
            bring(text, place, root)
        run = read_run(root / place.folder, place.row, text)
        yield Side(text, run, read_movies(root / TENSORS))


def bring(text: str, place: Place, root: Path) -> None:
    """Copy what a comparison reads from DVC's cache to below `root`."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    folder = f"/{place.folder.as_posix()}"
    with closing(DVCFileSystem(rev=place.revision)) as files:
        try:
            files.info(folder)
        except DvcException as error:
            raise PmmoError(
                f"{text!r} is neither a row of params.yaml nor a revision or an experiment "
                f"({error}). `dvc exp show` lists the experiments, `python -m pmmo params` the "
                "settings of a row."
            ) from None
        except FileNotFoundError:
            raise PmmoError(
                f"{text}: {place.revision or WORKSPACE} has no results of the row {place.row!r}: "
                "it is not in dvc.lock there. Train it: dvc repro, or dvc exp run."
            ) from None
        try:
            names = [Path(name).name for name in files.ls(folder, detail=False)]
            wanted = [place.folder / name for name in names if not name.startswith(MODEL)]
            for path in (*wanted, *(TENSORS / name for name in OF_MOVIES)):
                (root / path.parent).mkdir(parents=True, exist_ok=True)
                files.get_file(f"/{path.as_posix()}", str(root / path))
        except (OSError, DataIndexDirError) as error:
            raise PmmoError(
                f"{text}: its results are not in DVC's cache ({error}). Get them from DVC's remote "
                "with `dvc fetch --all-commits`, those of an experiment with `dvc exp pull`, or "
                "train them again."
            ) from None
