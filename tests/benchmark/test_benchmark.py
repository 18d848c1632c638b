"""The benchmark at tiny sizes: tables, ratios, phases, the bound by hand, and failures."""

import json
import os
import time
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import pandas as pd
import pyro
import pytest
import torch
from torch import nn

from pmmo.benchmark import __main__ as command
from pmmo.benchmark import bound, measure, runner, scaling, tables, workers
from pmmo.benchmark.cases import PHASES, Case, Shape, paper_settings
from pmmo.benchmark.goals import goals
from pmmo.benchmark.machine import start_up
from pmmo.benchmark.measure import Result, run_group
from pmmo.benchmark.plan import PEERS, Group, Plan, groups
from pmmo.benchmark.scaling_figure import write_figure
from pmmo.benchmark.stopwatch import Stopwatch, timed
from pmmo.benchmark.workers import NotMeasured, Worker, take_turns
from pmmo.core.errors import PmmoError
from pmmo.params import load_params

TINY = Shape(text=5, image=7, genres=3, movies=64)
PARAMS = Path(__file__).parents[2] / "params.yaml"
ROWS = {
    name: replace(settings, width=8, batch_size=16, maxout_units=6, epochs=2)
    for name, settings in paper_settings(PARAMS).items()
}
PLAN = Plan(shape=TINY, wide=24, narrow=12, rounds=2, guest_rounds=1)
MACHINE = {
    **{"cpu": "a CPU", "cores": 2, "memory_gb": 4, "gpu": None, "system": "Linux", "python": "3"},
    **{"load_before": 0.1, "huge_pages": "never", "versions": {"torch": "2"}},
    "start_up_seconds": 1.5,
}


def case(contender="pmmo", width=12, precision="float32", **rest):
    settings = replace(ROWS.get(contender, ROWS["pmmo"]), width=width, precision=precision)
    return Case(contender, settings, TINY, **rest)


class Here:
    """A worker without a process of its own."""

    def __init__(self, case):
        try:
            self.runner = runner.Runner(case)
        except ModuleNotFoundError as error:
            raise NotMeasured(f"not installed ({error.name})") from error

    def ask(self, question):
        return getattr(self.runner, question)()

    def close(self):
        pass

    __enter__ = lambda self: self  # noqa: E731
    __exit__ = lambda self, *_: None  # noqa: E731


@pytest.fixture
def here(monkeypatch):
    """Contenders run in this process, in short turns; its numerical settings are put back."""
    for module in (measure, scaling):
        monkeypatch.setattr(module, "Worker", Here)
    monkeypatch.setattr(command, "start_up", lambda: 1.5)
    monkeypatch.setattr(runner, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(bound, "BANDWIDTH_FLOATS", 1 << 16)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # see conftest.py
    matmul = torch.get_float32_matmul_precision()
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    torch.set_float32_matmul_precision(matmul)
    torch.set_flush_denormal(False)
    pyro.enable_validation(True)


def quiet(_):
    pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, while it compiles
@pytest.mark.parametrize("quick", [True, False])
def test_a_run_writes_three_files_with_all_rows(here, tmp_path, quick):
    plan = replace(PLAN, quick=quick)
    command.run(plan, ROWS, tmp_path, quiet)
    everything = json.loads((tmp_path / "benchmark.json").read_text())
    frame = pd.read_csv(tmp_path / "benchmark.csv")
    text = (tmp_path / "benchmark.md").read_text()
    expected = [c for g in groups(plan, ROWS) for c in (*g.core, *g.guests)]
    assert [(row["contender"], row["width"], row["threads"]) for row in everything["rows"]] == [
        (c.contender, c.settings.width, c.threads) for c in expected
    ]
    assert list(frame["contender"]) == [c.contender for c in expected]
    assert {12, 8} <= set(frame["width"])
    assert (24 in set(frame["width"])) == (not quick)
    measured = frame[frame["error"].isna()]
    assert set(frame["contender"]) - set(measured["contender"]) <= {*PEERS, "compiled"}
    assert (measured["ms_min"] <= measured["ms_per_step"]).all()
    assert (measured["ms_per_step"] <= measured["ms_max"]).all()
    per_epoch = measured["ms_per_step"] * 4 / 1e3  # 64 movies in batches of 16
    assert measured["seconds_per_epoch"].to_numpy() == pytest.approx(per_epoch, rel=1e-4)
    assert (measured.loc[measured["contender"] == "pmmo", "ratio"] == 1).all()
    steps = measured[measured["contender"] != "bound"]
    assert steps["ratio"].between(0.01, 100).all()
    assert (measured["ratio"] > 0).all()
    assert (measured["peak_gb"] > 0.05).all()
    for row in everything["rows"]:
        if row["contender"] == "pmmo":
            assert all(row[f"{phase.lower()}_ms"] > 0 for phase in PHASES)
        if row["contender"] == "bound":
            assert row["bound_gflops"] > 0
            assert row["data_ms"] is None
    for said in (
        "Evaluation after each epoch",
        "read its movies: 1.5 s",
        "- CPU ",
        "Allocator",
        "matmul precision",
        "## Goals",
    ):
        assert said in text
    assert text.count("\n| PM+MO |") == sum(c.contender == "pmmo" for c in expected)
    assert not list(tmp_path.glob("*.tmp"))


def test_phases_add_up_to_the_step(here):
    one = runner.Runner(case("plain", width=256))
    ratios = []
    for _ in range(5):
        step = one.seconds()
        phases = one.phases()
        assert set(phases) == set(PHASES)
        ratios.append(sum(phases.values()) / step)
    assert 0.3 < sorted(ratios)[2] < 3
    assert "losses" not in vars(one.contender)


def test_the_tutorials_process_keeps_torchs_and_pyros_defaults(here):
    torch.set_float32_matmul_precision("highest")
    facts = runner.prepare(case("tutorial"))
    assert facts["matmul"] == "highest"
    assert pyro.distributions.Normal(0, 1)._validate_args
    runner.prepare(case("plain"))
    assert not pyro.distributions.Normal(0, 1)._validate_args


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_that_is_installed_trains(here, peer):
    modules = {"bayesian-torch": "bayesian_torch"}
    pytest.importorskip(modules.get(peer, peer), reason="a peer of requirements-bench.txt")
    one = runner.Runner(case(peer))
    batch = one.batch()
    losses = [float(one.contender.step(batch)) for _ in range(30)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("contender", ["pmmo", "mmo"])
def test_bf16_takes_a_step(here, contender):
    assert runner.Runner(case(contender, precision="bf16")).seconds() > 0


def test_cycles_together_are_timed_as_one_of_them(here):
    one = runner.Runner(case("together"))
    cycles = ROWS["pmmo"].cycles
    assert one.batch().text.shape == (cycles, 16, 5)
    phases = one.phases()
    assert all(phases[phase] > 0 for phase in PHASES)
    alone = runner.Runner(case())
    ratio = one.seconds() / alone.seconds()
    assert 0.05 < ratio < 0.9  # at this size Python is what a step costs, and cycles share it


def test_a_loss_that_is_not_finite_is_an_error(here):
    one = runner.Runner(case("mmo"))
    one.movies.text.fill_(float("nan"))
    with pytest.raises(PmmoError, match="loss of mmo is nan"):
        one.seconds()


# ---- the bound ----


def test_bound_counts_by_hand():
    pmmo = case(width=10)
    sizes = {
        "text": (5, 10),
        "image": (7, 10),
        "gate": (20, 10),
        "readout": (10, 3),
        "maxout 1": (10, 12),
        "maxout 2": (6, 12),
        "output": (6, 3),
    }
    assert bound.layers(pmmo) == sizes
    random, other = 60 + 80 + 210, 33 + 132 + 84 + 21
    assert bound.traffic(pmmo) == 4 * (17 * random + 7 * other)
    assert bound.traffic(case("mmo", width=10)) == 4 * 7 * (random + other)
    flop = sum(2 * 16 * i * o for i, o in sizes.values())
    assert sum(work for work, _ in bound.products(pmmo, 16)) == 3 * flop
    bare = replace(pmmo, settings=replace(pmmo.settings, batch_norm=False))
    assert sum(work for work, _ in bound.products(bare, 16)) == 3 * flop - 2 * 16 * (50 + 70)


def test_bound_products_are_the_layers_own():
    layer = nn.Linear(7, 10, bias=False)
    shapes = [run().shape for work, run in bound.products(case(width=10), 16) if work == 2240]
    x = torch.rand(16, 7, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert shapes == [y.shape, layer.weight.grad.shape, x.grad.shape]


# ---- phases ----


def test_time_goes_to_the_innermost_phase(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Step:
        def inner(self, seconds):
            now[0] += seconds
            return seconds

        def outer(self):
            now[0] += 1
            return self.inner(10)

    step, table = Step(), {"term": lambda: step.inner(100)}
    synchronised = []
    watch = Stopwatch(("a", "b", "c", "d"), lambda: synchronised.append(1))
    with timed(watch, ((step, "outer", "a"), (step, "inner", "b"), (table, "term", "c"))):
        with watch.phase("d"):
            assert step.outer() == 10
            now[0] += 1000
        assert table["term"]() == 100
    assert watch.seconds == {"a": 1, "b": 110, "c": 0, "d": 1000}
    assert len(synchronised) == 10
    assert vars(step) == {}  # as before
    step.outer()
    assert watch.seconds["a"] == 1


# ---- goals ----


def results(times, **rest):
    """Results of (contender, width, threads) -> seconds, PM+MO at 1 s beside them."""
    return [
        Result(case(name, width, threads=threads, **rest), (seconds,), (1.0,))
        for (name, width, threads), seconds in times.items()
    ]


def test_goals_are_met_or_not_or_not_measured():
    times = {
        ("pmmo", 24, 1): 1.0,
        ("tutorial", 24, 1): 4.0,
        ("bound", 24, 1): 0.7,
        ("mmo", 24, 1): 0.8,
        ("torchbnn", 24, 1): 0.9,
        ("tutorial", 12, 1): 1.9,
        ("pmmo", 24, 2): 0.6,
        ("bound", 24, 2): 0.35,
    }
    measured = results(times)
    phases = dict.fromkeys(PHASES, 1.0) | {"data": 0.05}
    # 4 steps of a second: 0.21 s are more than 5 %
    measured[0] = replace(measured[0], phases=phases, facts={"dev_seconds": 0.21})
    found = {goal.text: goal for goal in goals(PLAN, measured)}
    verdicts = {text: goal.met for text, goal in found.items()}
    assert verdicts == {
        "plain Pyro step, unprepared process / PM+MO, width 24": True,
        "PM+MO / hardware bound, width 24": False,
        "PM+MO / deterministic step, width 24": True,
        "plain Pyro step, unprepared process / PM+MO, width 12": False,
        "data access of the step": True,
        "evaluation of dev after an epoch, of its steps": False,
        "torchbnn / PM+MO, width 24": False,
        "bayesian-torch / PM+MO, width 24": None,
        "blitz / PM+MO, width 24": None,
        "NumPyro / PM+MO, width 24": None,
        "speed-up of PM+MO by 2 threads / that of the bound, width 24": False,
    }
    last = found["speed-up of PM+MO by 2 threads / that of the bound, width 24"]
    assert last.measured == pytest.approx((1 / 0.6) / 2)


def test_a_gpus_goals_are_an_epoch_and_the_study():
    plan = replace(PLAN, device="cuda")
    found = goals(plan, results({("pmmo", 24, 1): 0.03}, device="cuda", precision="tf32"))
    rows = len(load_params(PARAMS).rows)
    assert [goal.met for goal in found] == [None, None, True, True]
    assert [g.measured for g in found[2:]] == pytest.approx([0.12, rows * 5 * 2 * 0.12 / 60])
    precisions = [c.precision for g in groups(plan, ROWS) for c in g.core if c.contender == "pmmo"]
    assert precisions == ["float32", "float32", "tf32", "bf16"]


def test_a_ratio_is_taken_round_by_round():
    drifting = Result(case("plain"), (2.0, 20.0, 200.0), (1.0, 10.0, 100.0))
    assert drifting.ratio == 2
    assert Result(case("plain"), error="failed").ratio is None


@pytest.mark.parametrize(("load", "said"), [(0.1, False), (3.0, True)])
def test_a_busy_machine_is_told(load, said):
    measured = results({("pmmo", 24, 1): 1.0})
    measured[0].facts.update(matmul="highest", thp_alloc="unset")
    text = tables.markdown(PLAN, MACHINE | {"load_before": load}, measured)
    assert ("Repeat on a quiet machine" in text) == said


# ---- processes ----


def test_the_start_of_a_stage_takes_time():
    assert 0.3 < start_up() < 120


def test_a_process_measures_and_its_death_is_told():
    with Worker(case("bound")) as worker:
        assert worker.ask("seconds") > 0
        facts = worker.ask("finish")
        assert facts["threads"] == 1
        assert facts["rates"]["gigabytes_per_second"] > 0
        worker.process.kill()
        worker.process.join()
        with pytest.raises(NotMeasured, match="its process died"):
            worker.ask("seconds")
    worker.close()  # again: nothing


def test_what_fails_in_a_process_is_told(monkeypatch):
    monkeypatch.setattr(workers, "confine", lambda threads: None)

    def answer(error):
        def fail(_):
            raise error

        monkeypatch.setattr(runner, "Runner", fail)
        ours, theirs = Pipe()
        workers.serve(theirs, case())
        return ours.recv()

    missing = ModuleNotFoundError("No module named 'blitz'", name="blitz")
    assert answer(missing) == (
        "failed",
        "not installed (blitz): see requirements-bench.txt",
    )
    assert answer(ValueError("first\nsecond")) == ("failed", "ValueError: first")


def test_a_process_keeps_to_its_cores(monkeypatch):
    kept = []
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: kept.append(cores), raising=False)
    workers.confine(2)
    assert kept == [[1, 2]]
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_a_peer_that_fails_has_a_row_and_an_own_step_stops_the_run(here, monkeypatch):
    def fail(_):
        raise ModuleNotFoundError(name="torchbnn")

    monkeypatch.setitem(runner.BUILDERS, "torchbnn", fail)
    far = time.monotonic() + 1000
    group = Group((case(),), (case("torchbnn"),))
    found = run_group(group, 1, 1, far, quiet)
    assert [bool(result.seconds) for result in found] == [True, False]
    assert found[1].error == "not installed (torchbnn)"
    assert found[1].ratio is None
    monkeypatch.setitem(runner.BUILDERS, "mmo", fail)
    with pytest.raises(PmmoError, match="mmo, width 12, 1 thread: not installed"):
        run_group(Group((case("mmo"),)), 1, 1, far, quiet)
    monkeypatch.setitem(runner.BUILDERS, "tutorial", fail)
    with pytest.raises(PmmoError, match="tutorial"):
        run_group(Group((case(),), (case("tutorial"),)), 1, 1, far, quiet)


def test_no_guest_begins_when_the_time_is_up(here):
    late = run_group(Group((case(),), (case("torchbnn"),)), 5, 5, time.monotonic() - 1, quiet)
    assert len(late[0].seconds) == 1
    assert late[1].error == "not measured: the time was up"


def test_contenders_take_turns():
    order = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def ask(self, question):
            order.append((self.name, question))
            return len(order)

    two = {"a": Fake("a"), "b": Fake("b")}
    far = time.monotonic() + 1000
    assert take_turns(two, 2, "seconds", far) == {"a": [1, 3], "b": [2, 4]}
    assert [name for name, _ in order] == ["a", "b", "a", "b"]
    assert take_turns(two, 2, "seconds", time.monotonic() - 1) == {"a": [5], "b": [6]}


def test_a_device_that_is_absent_stops_the_command(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PmmoError, match="no CUDA device"):
        command.main(["--device", "cuda"])


@pytest.mark.parametrize(("given", "quick"), [([], False), (["--quick"], True)])
def test_the_command_plans_and_names_the_files(monkeypatch, capsys, given, quick):
    plans = []
    monkeypatch.setattr(command, "paper_settings", lambda: ROWS)
    monkeypatch.setattr(command, "run", lambda plan, *rest: plans.append((plan, rest[1])))
    command.main([*given, "--device", "cpu", "--output", "there"])
    ((plan, folder),) = plans
    assert (plan.quick, plan.device, folder) == (quick, "cpu", Path("there"))
    assert plan.budget_seconds <= (120 if quick else 600)
    assert "there/benchmark.md" in capsys.readouterr().err


def test_the_rows_that_are_timed_have_the_papers_sizes():
    found = paper_settings(PARAMS)
    assert {name: (s.width, s.batch_size) for name, s in found.items()} == {
        "pmmo": (3000, 512),
        "mmo": (3000, 512),
        "gmu": (512, 512),
    }


# ---- scaling ----

SWEEP = scaling.Sweep(
    rows=(32, 64),
    widths=(6, 12),
    cycles=(1, 2),
    threads=(1,),
    rounds=1,
    width=6,
    movies=64,
    threads_width=12,
    shape=TINY,
)


def test_scaling_measures_every_axis_and_draws_it(here, monkeypatch, tmp_path):
    def stage(settings, shape, workers, watched=False):
        return float(settings.cycles), 0.5 if watched else None

    monkeypatch.setattr(scaling, "run_stage", stage)
    command.run_scaling(SWEEP, ROWS, tmp_path / "grow", quiet)
    frame = pd.read_csv(tmp_path / "grow.csv")
    found = {axis: sorted(set(part["value"])) for axis, part in frame.groupby("axis")}
    assert found == {"rows": [32, 64], "width": [6, 12], "cycles": [1, 2], "threads": [1]}
    assert (frame["time"] > 0).all()
    assert frame.loc[frame["what"] == "bound", "peak_gb"].isna().all()
    assert list(frame.loc[frame["axis"] == "cycles", "time"]) == [1, 2]
    svg = (tmp_path / "grow.svg").read_text()
    assert svg.startswith("<?xml")
    assert (tmp_path / "grow.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_numbers_draw_the_same_figure(tmp_path):
    lines = [
        (axis, value, "pmmo", "s", float(value), 1.0)
        for axis in ("rows", "width", "cycles", "threads")
        for value in (1, 2, 4)
    ]
    frame = pd.DataFrame(lines, columns=list(scaling.COLUMNS))
    for name in ("a", "b"):
        write_figure(frame, MACHINE, tmp_path / name)
    for suffix in (".svg", ".png", ".csv"):
        first, second = ((tmp_path / f"{n}{suffix}").read_bytes() for n in ("a", "b"))
        assert first == second


@pytest.mark.slow
def test_cycles_are_timed_and_weighed_in_processes_of_their_own():
    row = replace(ROWS["pmmo"], width=6, epochs=1, cycles=2, posterior_samples=1)
    seconds, peak = scaling.run_stage(row, replace(TINY, movies=128), 2, watched=True)
    assert seconds > 0
    assert 0.05 < peak < 8


def test_a_stage_whose_process_ends_is_an_error(monkeypatch):
    monkeypatch.setattr(scaling, "stage", print)  # ends without an answer
    with pytest.raises(PmmoError, match="the cycles of width 8 could not be run"):
        scaling.run_stage(replace(load_params().rows["gmu"], width=8), TINY, 1)


def test_threads_go_up_to_all_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert scaling.Sweep().thread_counts() == (1, 2, 4, 6)
    assert scaling.Sweep(threads=(3,)).thread_counts() == (3,)
