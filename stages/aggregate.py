"""Stage `aggregate`: runs/rows/ and data/tensors/ -> the numbers of every report, in reports/."""

import json
import shutil
import sys
from pathlib import Path

from threadpoolctl import threadpool_limits

from pmmo.analysis.abstention import abstention
from pmmo.analysis.aggregation import aggregate, check_scores, curve_table, metrics, score_table
from pmmo.analysis.budget import budget, rising
from pmmo.analysis.claims import as_metrics, judge_all, judge_steps
from pmmo.analysis.clock import provenance
from pmmo.analysis.comparisons import Evidence
from pmmo.analysis.guard import training, untrained
from pmmo.analysis.logistic import regressions
from pmmo.analysis.post_hoc import beyond
from pmmo.analysis.power import power
from pmmo.analysis.power_check import check
from pmmo.analysis.protocols import protocols
from pmmo.analysis.run_reader import read_movies, read_runs
from pmmo.core import stage
from pmmo.core.writing import write_json, write_text

FORMER = Path(".work/former-rows")


def set_aside() -> None:
    """Move rows that are no longer in params.yaml out of runs/rows: DVC would record them too."""
    rows = json.loads(Path("settings/reports.json").read_text(encoding="utf-8"))["rows"]
    for folder in Path("runs/rows").iterdir():
        if folder.name not in rows:
            shutil.rmtree(FORMER / folder.name, ignore_errors=True)
            FORMER.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, FORMER / folder.name)
            print(f"{folder} is no row of params.yaml; moved to {FORMER}", file=sys.stderr)


@threadpool_limits.wrap(limits=1, user_api="blas")  # the last bits depend on the threads
def main(root: Path = Path()) -> None:
    settings = json.loads((root / "settings/reports.json").read_text(encoding="utf-8"))
    chance, verdicts = settings["intervals"], settings["verdicts"]
    rows = read_runs(root / "runs/rows", list(settings["rows"].items()))
    tensors = root / "data" / "tensors"
    movies = read_movies(tensors)
    for run in rows.values():
        check_scores(run, movies)
    runs = {name: run for name, run in rows.items() if not run.trains_on_dev}  # others: protocols
    plain = regressions(tensors, movies)
    trained = training(runs, plain, **settings["guard"])
    budgets = budget(runs, verdicts["rise"])
    evidence = Evidence(
        runs,
        movies,
        **chance,
        margin=verdicts["equivalent"],
        untrained=untrained(trained),
        rising=rising(budgets),
    )
    claims, additions = judge_all(evidence), beyond(runs, movies, **chance)
    numbers = aggregate(runs, movies) | {
        "intervals": chance,
        "verdicts": verdicts,
        "training": trained,
        "logistic": {inputs: found["test"] for inputs, found in plain.items()},
        "budget": budgets,
        "claims": claims,
        "steps": judge_steps(evidence),
        "power": power(evidence, verdicts["power"]) | {"check": check(evidence)},
        "beyond": additions,
        "protocols": protocols(rows, movies, additions, **chance),
        "abstention": abstention(runs, movies, **chance),
    }
    reports = root / "reports"
    write_json(reports / "metrics.json", metrics(runs))
    write_json(reports / "claims.json", as_metrics(claims))
    write_json(reports / "numbers.json", numbers)
    write_json(reports / "provenance.json", provenance(evidence))
    for name, table in (("scores", score_table(runs)), ("curves", curve_table(runs))):
        write_text(reports / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    stage.run("aggregate", main, first=set_aside)
