"""Stage `comparison`: runs/experiment and the reference row -> their paired differences."""

import json
import sys
from pathlib import Path

from pmmo.analysis.run_reader import read_movies, read_run
from pmmo.core.names import COMPARISON, EXPERIMENT
from pmmo.core.stage import run
from pmmo.core.writing import write_json
from pmmo.pairs.differences import Side, compare, obstacle
from pmmo.pairs.words import in_words


def main(reference: str, root: Path = Path()) -> None:
    settings = json.loads((root / "settings/reports.json").read_text(encoding="utf-8"))
    movies = read_movies(root / "data/tensors")
    row = read_run(root / "runs/rows" / reference, reference, settings["rows"][reference])
    experiment = read_run(root / "runs/experiment", EXPERIMENT, "System under study")
    sides = Side(reference, row, movies), Side(EXPERIMENT, experiment, movies)
    if reason := obstacle(*sides):
        print(f"comparison: no difference is measured: {reason}.", file=sys.stderr)
        found = {"verdict": "not comparable"}
    else:
        margin = settings["verdicts"]["equivalent"]
        facts = compare(*sides, **settings["intervals"], margin=margin)
        print(in_words(facts))
        weighted = facts["scores"]["weighted"]
        found = {key: weighted[key] for key in ("difference", "low", "high", "verdict")}
    write_json(root / COMPARISON, {"reference": reference} | found)


if __name__ == "__main__":
    run("comparison", main, *sys.argv[1:])
