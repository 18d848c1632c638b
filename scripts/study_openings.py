"""Measure the openings of the paper one setting at a time, on dev; writes a table and a picture.

    python -m scripts.study_openings synthetic /path/to/movies.hdf5 --output docs/openings
    python -m scripts.study_openings synthetic --scale paper --seeds 2 --epochs 8

Starting from the working reading of each variant, one opening changes at a time. Scores are
weighted F1 on dev; test is not used. Finished cycles are kept in .work/study, so an interrupted
study resumes. `--scale paper` has the paper's sizes and as many synthetic movies as MM-IMDb: many
hours on a CPU, minutes on a GPU.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from pmmo.config.settings import Settings
from pmmo.core.errors import PmmoError
from pmmo.core.writing import write_text
from pmmo.data.extract import extract
from pmmo.fetching.fetch import fetch
from pmmo.params import load_params
from pmmo.published.mmimdb import ROWS
from pmmo.reporting.style import BLUE, GREY, INK, ORANGE, STYLE
from pmmo.training.cycle_store import cycle_key
from pmmo.training.cycles import Splits, run_cycles
from pmmo.training.device import choose_device, prepare_process
from pmmo.training.variant import load_splits, number_of_workers

WORK = Path(".work/study")
LEVEL = 0.95

# variant -> opening (departure in docs/fidelity.md) -> the other readings
Openings = dict[str, dict[str, list[dict[str, object]]]]
DEMO: Openings = {
    "pmmo-kl-l2": {
        "Gate input (D1)": [{"gate_input": "inputs"}],
        "A's likelihood (D2)": [{"readout": "classifier"}],
        "C's gradient into A (D2)": [{"classifier_gradient": "detached"}],
        "ELBO": [{"elbo": "v1"}, {"elbo": "v2"}],
        "KL annealing from (D3)": [{"anneal_from": a} for a in (0.0, 0.1, 0.5)],
        "KL weight (D5)": [{"kl_weight": k} for k in ("exact", 0.1, 0.01, 0.001, 0.0)],
        "Prior (D6)": [{"prior": "fixed"}],
        "Prior and KL weight (D5, D6)": [{"prior": "fixed", "kl_weight": k} for k in (0.01, 0.001)],
        "Prior's μ": [{"prior_loc": 0.0}],
        "Prior's σ": [{"prior_scale": 0.1}],
        "σ is (D8)": [{"prior_scale_is": "variance"}],
        "Guide starts at (D7)": [{"guide_start": "prior"}],
        "Guide's first scale (D7)": [{"guide_scale": s} for s in (0.003, 0.03, 0.1)],
        "Penalty (D14)": [
            {"penalty": "none"},
            {"penalty": "l1"},
            {"penalty_on": "loc"},
            {"penalty_reduction": "sum"},
            {"penalty_weight": 10.0},
        ],
        "Prediction": [{"prediction": "samples"}],
        "Maxout layers (D13)": [{"maxout_layers": 1}, {"maxout_layers": 3}],
        "Maxout pieces (D13)": [{"maxout_pieces": 5}],
        "Max-norm (D13)": [{"max_norm": "none"}, {"max_norm": 20.0}],
        "Dropout (D15)": [{"dropout": p} for p in (0.5, 0.9)],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
        "C's cross-entropy (D10)": [{"bce": "mean"}],
        "Threshold": [{"threshold": t} for t in (0.3, 0.4)],
        "Learning rate": [{"learning_rate": 1e-3}, {"classifier_learning_rate": 1e-3}],
        "Weight decay of C": [{"weight_decay": 0.0}],
    },
    "gmu": {
        "Gate input": [{"gate_input": "outputs"}],
        "Maxout layers": [{"maxout_layers": 1}],
        "Max-norm": [{"max_norm": "none"}, {"max_norm": 20.0}],
        "Dropout": [{"dropout": p} for p in (0.0, 0.5)],
        "Batch norm": [{"batch_norm": False}],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
        "Cross-entropy (D10)": [{"bce": "sum"}],
        "Threshold": [{"threshold": t} for t in (0.3, 0.4)],
        "Learning rate": [{"learning_rate": 5e-3}],
    },
}


WIDE: dict[str, list[dict[str, object]]] = {
    "C's order and dropout (D13, D23)": [
        *({"classifier_order": "gmu", "dropout": p} for p in (0.9, 0.7, 0.5, 0.1)),
        *({"dropout": p} for p in (0.7, 0.5, 0.1)),
    ],
}
PAPER: Openings = {
    "pmmo-kl-l2-1024": {
        **WIDE,
        "Maxout units (D13)": [{"maxout_units": 512}, {"maxout_units": 3000}],
        "Maxout layers (D13)": [{"maxout_layers": 1}, {"maxout_layers": 3}],
        "Maxout pieces (D13)": [{"maxout_pieces": 5}],
        "Max-norm (D13)": [{"max_norm": "none"}, {"max_norm": 20.0}],
        "KL weight (D5)": [{"kl_weight": k} for k in ("exact", 0.0)],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
        "Learning rate (D31)": [
            {"learning_rate": rate, "classifier_learning_rate": rate} for rate in (2e-3, 1e-3)
        ],
    },
    "mmo": WIDE,
    "gmu": {
        "Dropout (D23)": [{"dropout": p} for p in (0.5, 0.3, 0.1)],
        "Maxout layers (D13)": [{"maxout_layers": 1}],
        "Learning rate": [{"learning_rate": 5e-3}],
    },
    "pmmo-kl-l2": WIDE,
}
OPENINGS = {"demo": DEMO, "paper": PAPER}


@dataclass(frozen=True)
class Data:
    """A data set of the study."""

    name: str
    tensors: Path
    splits: Splits


def prepare(source: str, scale: str) -> Data:
    """Fetch and extract a source as in the pipeline, into a separate folder."""
    settings = load_params(scale="demo").data
    rows = ROWS if scale == "paper" else settings.rows
    folder = WORK / (f"synthetic-{rows}" if source == "synthetic" else Path(source).stem)
    movies, tensors = folder / "movies.hdf5", folder / "tensors"
    of_synthetic = {"rows": rows, "seed": settings.seed} if source == "synthetic" else {}
    limit = settings.memory_limit_gb
    fetch(movies, source=source, memory_limit_gb=limit, work=folder / "fetch", **of_synthetic)
    extract(movies, tensors, nan_text=settings.nan_text, memory_limit_gb=limit)
    facts = json.loads((tensors / "movies.json").read_text())
    kind = "synthetic" if facts["provenance"]["kind"] == "synthetic" else "real"
    name = f"{kind}, {len(facts['ids']):,} movies, {len(facts['genres'])} genres"
    return Data(name, tensors, load_splits(tensors, choose_device("auto")))


def readings(
    openings: Mapping[str, list[dict[str, object]]],
) -> Iterator[tuple[str, dict[str, object]]]:
    """The working reading of a variant, then each other one: opening and changed settings."""
    yield "working reading", {}
    for opening, others in openings.items():
        for change in others:
            yield opening, change


def dev_scores(settings: Settings, data: Data) -> list[float]:
    """Weighted F1 on dev of each seed at its best epoch; 0 if training diverges."""
    store = WORK / "cycles" / cycle_key(settings, data.tensors)
    workers = number_of_workers(settings, choose_device(settings.device))
    try:
        cycles = run_cycles(settings, data.splits, store, workers)
    except PmmoError as error:
        print(f"counted as 0: {error}", file=sys.stderr)
        return [0.0] * settings.cycles
    return [cycle.summary["dev"]["weighted"] for cycle in cycles]


def study(data: Data, scale: str, seeds: int, epochs: int | None) -> pd.DataFrame:
    """One row per variant and reading: dev scores, paired differences to the working reading."""
    lines = []
    for row, openings in OPENINGS[scale].items():
        settings = load_params(scale=scale).rows[row]
        base = replace(settings, cycles=seeds, epochs=epochs or settings.epochs)
        plain = np.array(dev_scores(base, data))
        for opening, change in readings(openings):
            known = {key: value for key, value in asdict(base).items() if key in change}
            scores = np.array(dev_scores(replace(base, **change), data))
            lines.append(
                {
                    "data": data.name,
                    "seeds": seeds,
                    "row": row,
                    "opening": opening,
                    "reading": words(change),
                    "instead_of": words(known),
                    "dev_weighted": scores.mean(),
                    "sd": scores.std(ddof=1),
                    "difference": (scores - plain).mean(),
                    "difference_sd": (scores - plain).std(ddof=1),
                }
            )
    return with_intervals(pd.DataFrame(lines), seeds)


def words(change: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {str(value).lower()}" for key, value in change.items())


def with_intervals(table: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """Add paired intervals with one standard deviation for all readings of a variant.

    A few seeds estimate a standard deviation poorly. The variance of a difference is therefore
    pooled over the readings of a variant, with 2 degrees of freedom from each.
    """
    others = table[table["reading"] != ""]
    variance = others.groupby("row")["difference_sd"].agg(lambda sd: np.mean(np.square(sd)))
    freedom = others.groupby("row").size() * (seeds - 1)
    reach = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(variance / seeds)
    width = table["row"].map(reach).where(table["reading"] != "")
    return table.assign(low=table["difference"] - width, high=table["difference"] + width)


def verdict(line: Mapping) -> str:
    if line["low"] > 0:
        return "better"
    return "worse" if line["high"] < 0 else "same"


def to_markdown(table: pd.DataFrame) -> str:
    """One table per variant, with the data sets side by side."""
    text = [
        "# The openings, measured",
        "",
        "Written by `python -m scripts.study_openings`; what it means: [openings.md](openings.md). "
        f"Weighted F1 on dev at the best epoch, mean ± sd over {table['seeds'].max()} seeds; "
        f"paired difference to the working reading with a {LEVEL:.0%} interval.",
    ]
    for row, lines in table.groupby("row", sort=False):
        names = list(lines["data"].unique())
        text += ["", f"### `{row}`", ""]
        header = [f"{name}: dev F1 | difference | " for name in names]
        text += [f"| Opening | Reading | {' | '.join(header)} |"]
        text += ["|---|---|" + "---:|---:|---|" * len(names)]
        for (opening, reading, known), pair in lines.groupby(
            ["opening", "reading", "instead_of"], sort=False
        ):
            shown = f"{reading} (instead of {known})" if reading else "as in params.yaml"
            cells = [opening, shown]
            for name in names:
                line = pair[pair["data"] == name].iloc[0]
                cells.append(f"{line['dev_weighted']:.3f} ± {line['sd']:.3f}")
                if not reading:
                    cells += ["", ""]
                    continue
                cells.append(
                    f"{line['difference']:+.3f} ({line['low']:+.3f} to {line['high']:+.3f})"
                )
                cells.append("" if verdict(line) == "same" else verdict(line))
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text).replace("-0.", "−0.")


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the differences to the working reading with their intervals."""
    names = list(table["data"].unique())
    rows = list(table["row"].unique())
    readings_of = [table[(table["row"] == row) & (table["reading"] != "")] for row in rows]
    counts = [lines["reading"].nunique() for lines in readings_of]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 1.6 + 0.2 * sum(counts)), layout="constrained")
        grid = figure.subplots(len(rows), 1, height_ratios=counts, squeeze=False)[:, 0]
        for axes, row, lines in zip(grid, rows, readings_of, strict=True):
            labels = list(lines["reading"].unique())
            for name, colour, marker, shift in zip(
                names, (BLUE, ORANGE), ("o", "s"), (-0.15, 0.15), strict=False
            ):
                own = lines[lines["data"] == name].set_index("reading").loc[labels]
                place = np.arange(len(labels)) + shift
                reach = own["high"] - own["difference"]
                axes.errorbar(
                    own["difference"], place, xerr=reach, fmt=marker, color=colour, ms=4, label=name
                )
            axes.axvline(0, color=INK, lw=0.9)
            axes.set_xlim(-0.2, 0.06)
            for number, (_, own) in enumerate(lines.groupby("reading", sort=False)):
                if (own["difference"] < -0.2).any():
                    note = " and ".join(f"{d:.2f}" for d in own["difference"]).replace("-", "−")
                    axes.text(-0.198, number, f"◂ {note}", va="center", size=7, color=GREY)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.set_title(f"{row}: one setting changed", weight="bold")
        grid[0].legend(loc="lower left")
        grid[-1].set_xlabel(
            f"Difference in weighted F1 on dev ({table['seeds'].max()} paired seeds, "
            f"{LEVEL:.0%} intervals)"
        )
        figure.savefig(path.with_suffix(".png"), dpi=110)


def main(arguments: argparse.Namespace) -> None:
    prepare_process(choose_device("auto"))
    output, scale = arguments.output, arguments.scale
    data = [prepare(source, scale) for source in arguments.sources]
    table = pd.concat(
        [study(d, scale, arguments.seeds, arguments.epochs) for d in data], ignore_index=True
    )
    write_text(output.with_suffix(".csv"), table.to_csv(index=False, float_format="%.5f"))
    write_text(output.with_name(f"{output.name}-table.md"), to_markdown(table))
    draw(table, output)


def two_or_more(text: str) -> int:
    if int(text) < 2:
        raise argparse.ArgumentTypeError("must be 2 or more: the intervals need a spread")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="synthetic, or the path of an HDF5 file")
    parser.add_argument("--scale", choices=tuple(OPENINGS), default="demo")
    parser.add_argument("--seeds", type=two_or_more, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the scale's")
    parser.add_argument("--output", type=Path, default=WORK / "openings")
    try:
        main(parser.parse_args())
    except PmmoError as error:
        sys.exit(f"study: {error}")
