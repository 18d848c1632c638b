"""Stage `resolve`: params.yaml -> settings/{<row>,experiment,data,reports,engine}.json, checked.

Everything is checked here, before anything is fetched or trained; a row is retrained when its
resolved settings change, and only then.
"""

from dataclasses import asdict
from pathlib import Path

from pmmo.config.settings import save_settings
from pmmo.core.errors import PmmoError
from pmmo.core.stage import run
from pmmo.core.writing import growing_folder, write_json
from pmmo.params import load_params


def main() -> None:
    try:
        params = load_params()
    except PmmoError as error:
        raise PmmoError(f"{error}\nNothing was trained.") from None
    labels = {name: settings.label for name, settings in params.rows.items()}
    reports = {
        "rows": labels,
        "intervals": asdict(params.intervals),
        "guard": asdict(params.guard),
        "verdicts": asdict(params.verdicts),
    }
    with growing_folder(Path("settings")) as folder:
        for settings in (*params.rows.values(), params.experiment):
            save_settings(settings, folder / f"{settings.name}.json")
        write_json(folder / "data.json", asdict(params.data))
        write_json(folder / "reports.json", reports)
        write_json(folder / "engine.json", asdict(params.engine))


if __name__ == "__main__":
    run("resolve", main)
