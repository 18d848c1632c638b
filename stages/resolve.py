"""Stage `resolve`: params.yaml -> settings/{<row>,experiment,data,reports,engine}.json, checked.

Everything is checked here, before anything is fetched or trained; a row is retrained when its
resolved settings change, and only then.
"""

from dataclasses import asdict
from pathlib import Path

from pmmo.config.settings import save_settings
from pmmo.core.errors import PmmoError
from pmmo.core.names import COMPARISON, NOT_MEASURED
from pmmo.core.stage import run
from pmmo.core.writing import growing_folder, write_json
from pmmo.params import load_params

OF_EXPERIMENT = Path("settings/experiment.json"), Path("settings/data.json")


def main() -> None:
    try:
        params = load_params()
    except PmmoError as error:
        error.add_note("Nothing was trained.")
        raise
    labels = {name: settings.label for name, settings in params.rows.items()}
    reports = {
        "rows": labels,
        "intervals": asdict(params.intervals),
        "guard": asdict(params.guard),
        "verdicts": asdict(params.verdicts),
    }
    before = of_experiment()
    with growing_folder(Path("settings")) as folder:
        for settings in (*params.rows.values(), params.experiment):
            save_settings(settings, folder / f"{settings.name}.json")
        write_json(folder / "data.json", asdict(params.data))
        write_json(folder / "reports.json", reports)
        write_json(folder / "engine.json", asdict(params.engine))
    if of_experiment() != before:  # another system, or other movies; and DVC may take its results
        write_json(COMPARISON, NOT_MEASURED)  # from the cache, without a run of `experiment`


def of_experiment() -> list[bytes | None]:
    """What the system under study is trained with."""
    return [path.read_bytes() if path.exists() else None for path in OF_EXPERIMENT]


if __name__ == "__main__":
    run("resolve", main)
