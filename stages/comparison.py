"""Stage `comparison`: runs/experiment and the reference row -> their paired differences."""

import json
import sys
from pathlib import Path

from pmmo.analysis.pairs import Side, compare, obstacle
from pmmo.analysis.run_reader import read_movies, read_run
from pmmo.core.names import EXPERIMENT
from pmmo.core.stage import run
from pmmo.core.writing import write_json
from pmmo.reporting.pair_text import in_words


def main(reference: str) -> None:
    settings = json.loads(Path("settings/reports.json").read_text(encoding="utf-8"))
    movies = read_movies(Path("data/tensors"))
    row = read_run(Path("runs/rows") / reference, reference, settings["rows"][reference])
    experiment = read_run(Path("runs/experiment"), EXPERIMENT, "System under study")
    sides = Side(reference, row, movies), Side(EXPERIMENT, experiment, movies)
    if reason := obstacle(*sides):
        print(f"comparison: no difference is measured: {reason}.", file=sys.stderr)
        found = {"verdict": f"not comparable: {reason}"}
    else:
        facts = compare(*sides, **settings["intervals"])
        print(in_words(facts))
        weighted = facts["scores"]["weighted"]
        found = {key: weighted[key] for key in ("difference", "low", "high", "verdict")}
    write_json(Path("reports/comparison.json"), {"reference": reference} | found)


if __name__ == "__main__":
    run("comparison", main, *sys.argv[1:])
