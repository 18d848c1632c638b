"""Stage `resolve`: params.yaml -> settings/{<row>,experiment,data,reports,engine}.json, checked.

Everything is checked here, before anything is fetched or trained; a row is retrained when its
resolved settings change, and only then.
"""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from pmmo.errors import PmmoError
from pmmo.params import load_params, show_as_changed
from pmmo.settings import save_settings
from pmmo.writing import write_json


def main() -> None:
    params = load_params()
    folder = Path("settings")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for settings in (*params.rows.values(), params.experiment):
        save_settings(settings, folder / f"{settings.name}.json")
    labels = {name: settings.label for name, settings in params.rows.items()}
    reports = {"rows": labels, "intervals": asdict(params.intervals)}
    write_json(folder / "data.json", asdict(params.data))
    write_json(folder / "reports.json", reports)
    write_json(folder / "engine.json", asdict(params.engine))


if __name__ == "__main__":
    try:
        main()
    except PmmoError as error:
        # `dvc exp run -S` leaves its value in params.yaml with the file times that git has noted:
        # git would call the file unchanged and restore nothing
        show_as_changed(Path("params.yaml"))
        sys.exit(
            f"resolve: {error}\n"
            "Nothing was trained. If the value came from -S, it is still in params.yaml: put it "
            "back with\n    git restore params.yaml"
        )
