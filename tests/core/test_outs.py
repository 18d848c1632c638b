"""No command of a user's writes where the pipeline keeps its own files."""

from pathlib import Path

import pytest

from pmmo.core import outs
from pmmo.core.errors import PmmoError
from pmmo.own_movies.import_table import import_table
from pmmo.own_movies.predict import predict_file

ROOT = Path(__file__).parents[2]
OURS = [
    *(
        "data/fetched/movies.hdf5",
        "data/fetched/columns.json",
        "data/tensors",
        "data/tensors/text.safetensors",
    ),
    *("settings/gmu.json", "runs/rows", "runs/rows/gmu/x.csv", "runs/rows/mine.csv"),
    *("runs/experiment/model.json", "reports/experiment.json", "reports/experiment_curves.csv"),
    *("reports/metrics.json", "reports/tables/x.csv", "reports/figures/x", "reports/index.html"),
    *("runs", "reports", ".work/fetch/x.hdf5", "data/../data/fetched/movies.hdf5"),
    *("link.csv", "folder/movies.hdf5", "disk/rows/x.csv"),
]
USERS = ["data/own.hdf5", "predictions.csv", "reports/own.csv", "data/tensors.csv", "runs/x.csv"]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with this project's dvc.yaml, and links that lead to its outs."""
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    for name in ("data", "disk/rows"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs").symlink_to("disk")
    (tmp_path / "folder").symlink_to("data/fetched")
    (tmp_path / "link.csv").symlink_to("data/fetched/movies.hdf5")
    monkeypatch.setattr(outs, "PROJECT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("absolute", [False, True])
def test_an_output_of_the_pipeline_is_no_output_of_a_command(project, monkeypatch, name, absolute):
    monkeypatch.chdir(project)
    path = project / name if absolute else Path(name)
    before = sorted(project.rglob("*"))
    with pytest.raises(PmmoError, match=r"is, lies in or holds .*, which belongs to the pipeline"):
        predict_file(project / "model", project / "movies.hdf5", path)
    with pytest.raises(PmmoError, match="which belongs to the pipeline"):
        import_table(project / "t.csv", path)
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("name", USERS)
def test_a_name_beside_them_is_free(project, name):
    outs.check_output(project / name)


def test_what_is_read_is_not_replaced(project):
    for name in ("t.csv", "m.npy", "model.json", "model.safetensors", "movies.hdf5"):
        (project / name).write_text("mine")
    with pytest.raises(PmmoError, match=r"m.npy: is read by this command"):
        import_table(project / "t.csv", project / "m.npy", image=str(project / "m.npy"))
    for name in ("model.json", "model.safetensors", "movies.hdf5"):
        with pytest.raises(PmmoError, match=f"{name}: is read by this command"):
            predict_file(project, project / "movies.hdf5", project / name)
        assert (project / name).read_text() == "mine"


def test_every_out_of_the_pipeline_is_known():
    """By the names of dvc.yaml itself."""
    found = {path.relative_to(ROOT).as_posix() for path in outs.outs(ROOT)}
    wanted = {
        "data/fetched/movies.hdf5",
        "settings",
        "runs/rows",
        "runs/experiment",
        "reports/tables",
    }
    assert wanted | {"reports/experiment_curves.csv", ".work"} <= found
    assert not [name for name in found if "$" in name]
