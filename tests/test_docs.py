"""Every `$` command of README.md and docs/ is run, in their order, in a clone of tiny sizes.

A command that cannot run here as it stands has a stand-in below, or is not run; the reason stands
beside it.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from pmmo.fetching.synthetic import write_synthetic
from tests.clone import ROOT, environment, run, wait_for_queue

pytestmark = pytest.mark.timeout(900)

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)
WAIT = "(wait for the queue)"
STAND_INS = {
    # they set up a virtual environment; the clone was made by `dvc repro`, and this is a test
    "make repro": "make -n repro",
    "make test": "make -n test",
    # the published file needs a network; the command after it trains the clone's tiny sizes
    "dvc exp run -S scale=paper": (
        "dvc exp run -S scale=paper -S data.source=/path/to/movies.hdf5 extract"
    ),
    # six runs where two show the same
    "dvc exp run --queue -n sweep -S 'elbo=v1,v2,kl' -S 'penalty=none,l2' comparison": (
        "dvc exp run --queue -n sweep -S elbo=v1 -S 'penalty=none,l2' comparison"
    ),
    # returns before the experiments are done, which later commands need
    "dvc queue start": WAIT,
    # the cluster's engine changes nothing else of the command; test_ray.py has a cluster
    "PMMO_ENGINE=ray python -m pmmo grid -j 3": "PMMO_ENGINE=local python -m pmmo grid -j 3",
}
ENCODERS = (  # of the worked example of `embed`
    "--text-encoder word2vec:data/drawn/words.vec "
    "--image-encoder timm:test_resnet:data/drawn/weights.safetensors"
)
NO_TIMM = "timm is optional; test_embed.py does the same with an image encoder of its own"
A_CLUSTER = "Ray is optional; test_ray.py starts and stops two nodes where it is installed"
NOT_RUN = {  # command -> why no test can run it
    "pip install -r requirements.txt -r requirements-ray.txt": "a test installs nothing",
    "ray start --head --disable-usage-stats": A_CLUSTER,
    "ray stop": A_CLUSTER,
    "ray start --head --disable-usage-stats --num-gpus 4": "four GPUs",
    "PMMO_ENGINE=ray python -m pmmo grid -j 2": "the same four GPUs; -j 3 is run above it",
    "python -m scripts.draw_movies data/drawn --weights": NO_TIMM,
    f"python -m pmmo embed data/drawn/movies.csv data/drawn.hdf5 {ENCODERS}": NO_TIMM,
    "dvc exp run -S data.source=data/drawn.hdf5 experiment": NO_TIMM,
    f"python -m pmmo embed data/drawn/new-movies.csv data/drawn-new.hdf5 --unlabelled {ENCODERS}": (
        NO_TIMM
    ),
    "python -m pmmo predict runs/experiment data/drawn-new.hdf5 --output data/drawn.csv": NO_TIMM,
    "kubectl port-forward service/pmmo-head-svc 10001:10001 &": "a Kubernetes cluster",
    "PMMO_ENGINE=ray://localhost:10001 python -m pmmo grid -j 2": "the same Kubernetes cluster",
}
FAILS = {  # a command that shows its message
    "dvc exp run -S elbo=v9",
    "dvc exp run -S elbo=v9 experiment",
    "dvc exp run --temp -S elbo=v9 experiment",
}
AS_SHOWN = ("python -m pmmo import ", "head -n 3 ")  # what they print holds at every size
DRAWN_BY = {  # pictures that no stage draws: what does, named in the document
    "docs/openings.png": "python -m scripts.study_openings",
    "docs/openings-paper.png": "python -m scripts.study_openings",
    "docs/performance-scaling.png": "make scaling",
}


def commands(document: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of the document's console blocks, and the output shown below it."""
    text = (ROOT / document).read_text()
    for block in re.findall(r"^```console\n(.*?)^```", text, re.S | re.M):
        for entry in re.split(r"^\$ ", re.sub(r"\s*\\\n\s*", " ", block), flags=re.M)[1:]:
            first, *shown = entry.rstrip().split("\n")
            yield re.sub(r"\s+#.*", "", first).strip(), shown


@pytest.fixture(scope="module")
def folder(clone, tmp_path_factory) -> Path:
    """A copy of the clone: the documents leave experiments and branches in it."""
    return Path(shutil.copytree(clone, tmp_path_factory.mktemp("docs") / "pmmo"))


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> Path:
    """A user's own file."""
    path = tmp_path_factory.mktemp("own") / "movies.hdf5"
    write_synthetic(path, rows=120, seed=5)
    return path


LONG = {"docs/experiments.md"}  # test_experiments.py has most of its commands, too


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in LONG else [])
        for name in DOCUMENTS
        if list(commands(name))
    ],
)
def test_every_command_does_what_the_document_says(folder, movies, document):
    for command, shown in commands(document):
        if command in NOT_RUN:
            continue
        here = STAND_INS.get(command, command)
        if here == WAIT:
            wait_for_queue(folder)
            continue
        here = re.sub(r"/(path/to|where/it/is)/[\w.-]+\.hdf5", str(movies), here)
        done = subprocess.run(
            here, shell=True, cwd=folder, env=environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == (command in FAILS), f"$ {here}\n{said}"
        if command in FAILS or command.startswith(AS_SHOWN):
            assert [line for line in shown if line not in said] == [], said
    run(folder, "git", "restore", ".")
    run(folder, "dvc", "checkout", "--allow-missing")


def test_every_stand_in_is_of_a_documented_command():
    documented = {command for name in DOCUMENTS for command, _ in commands(name)}
    assert {*STAND_INS, *FAILS, *NOT_RUN} - documented == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_of_the_repository(document):
    text = (ROOT / document).read_text()
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [t for t in targets if not ((ROOT / document).parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_picture_is_drawn_by_a_stage_or_a_command_of_its_document(document):
    text, made = (ROOT / document).read_text(), (ROOT / "dvc.yaml").read_text()
    recipes = text + (ROOT / "Makefile").read_text()
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        name = (ROOT / document).parent.joinpath(picture).resolve().relative_to(ROOT.resolve())
        if str(name) in DRAWN_BY:
            assert DRAWN_BY[str(name)] in text
            assert f" {name.with_suffix('')}\n" in recipes  # where the command writes it
        else:
            assert any(f"- {place}:" in made for place in (name, *name.parents[:-1])), picture


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_and_target_that_a_document_names_exists(document):
    """Those of commands that take long or need another machine, too."""
    text = (ROOT / document).read_text()
    modules = set(re.findall(r"python -m ((?:pmmo|scripts|stages|tests)[\w.]*\w)", text))
    assert [name for name in sorted(modules) if find_spec(name) is None] == []
    code = re.findall(r"^```\w*\n.*?^```|`[^`\n]+`", text, re.S | re.M)
    targets = {name for piece in code for name in re.findall(r"\bmake ([\w-]+)", piece)}
    made = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert sorted(targets - set(made)) == []


@pytest.mark.parametrize("document", DOCUMENTS[1:])
def test_the_readme_leads_to_every_document(document):
    """By one step, or by two."""
    seen = {"README.md"}
    for _ in range(2):
        for name in sorted(seen):
            text = (ROOT / name).read_text()
            found = re.findall(r"\]\((?!https?:|#)([^)#\s]+\.md)", text)
            linked = [(ROOT / name).parent.joinpath(link).resolve() for link in found]
            seen |= {str(path.relative_to(ROOT.resolve())) for path in linked}
    assert document in seen


def test_commands_are_spelt_so_that_a_shell_takes_them():
    for document in DOCUMENTS:
        for command, _ in commands(document):
            assert shlex.split(command), document
