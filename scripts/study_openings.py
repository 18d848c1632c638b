"""Measure the openings of the paper one setting at a time, on dev; writes a table and a picture.

    python -m scripts.study_openings synthetic /path/to/movies.hdf5 --output docs/openings
    python -m scripts.study_openings synthetic --scale paper --seeds 2 --epochs 8
    python -m scripts.study_openings synthetic --scale paper --variants gmu --openings dropout

Starting from the working reading of each variant, one opening changes at a time. Scores are
weighted F1 on dev; test is not used. `--scale paper` has the paper's sizes and as many synthetic
movies as MM-IMDb: many hours on a CPU, minutes on a GPU.

Finished cycles are kept in .work/study, so an interrupted study resumes. The CSV gets each line as
soon as it is measured and keeps those of earlier calls, so that a study can be made in parts.
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
from pmmo.params import load_params
from pmmo.published.mmimdb import ROWS
from pmmo.reporting.style import BLUE, GREY, INK, ORANGE, STYLE
from pmmo.training.cycle_store import cycle_key
from pmmo.training.cycles import Splits, run_cycles
from pmmo.training.device import choose_device, prepare_process
from pmmo.training.variant import load_splits, number_of_workers
from scripts.probe import tensors_of

WORK = Path(".work/study")
LEVEL = 0.95
KEY = ("data", "seeds", "epochs", "row", "reading")  # of a line of the table

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


# the most important first: a study that is stopped keeps what it has
ORDER: list[dict[str, object]] = [
    {"classifier_order": "gmu", "dropout": p} for p in (0.9, 0.7, 0.5, 0.1)
]
PAPER: Openings = {
    "pmmo-kl-l2-1024": {
        "Dropout (D23)": [{"dropout": p} for p in (0.7, 0.5, 0.1)],
        "Learning rate (D31)": [
            {"learning_rate": rate, "classifier_learning_rate": rate} for rate in (2e-3, 1e-3)
        ],
        "Maxout layers (D13)": [{"maxout_layers": 1}, {"maxout_layers": 3}],
        "Maxout units (D13)": [{"maxout_units": 512}],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
        "KL weight (D5)": [{"kl_weight": k} for k in ("exact", 0.0)],
        "Maxout pieces (D13)": [{"maxout_pieces": 5}],
        "Max-norm (D13)": [{"max_norm": "none"}, {"max_norm": 20.0}],
        "C's order (D13)": ORDER,
    },
    "mmo-1024": {
        "Dropout (D23)": [{"dropout": p} for p in (0.7, 0.5)],
        "Learning rate (D31)": [{"learning_rate": 2e-3, "classifier_learning_rate": 2e-3}],
        "Maxout layers (D13)": [{"maxout_layers": 1}],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
    },
    "gmu": {
        "Dropout (D23)": [{"dropout": p} for p in (0.5, 0.3)],
        "Maxout layers (D13)": [{"maxout_layers": 1}],
        "Learning rate (D31)": [{"learning_rate": 5e-3}],
    },
    "gmu-1024": {},
    "pmmo-released-1024": {},
    "pmmo-kl-l2": {
        "Learning rate (D31)": [{"learning_rate": 2e-3, "classifier_learning_rate": 2e-3}],
        "Dropout (D23)": [{"dropout": p} for p in (0.7, 0.5, 0.1)],
        "Maxout layers (D13)": [{"maxout_layers": 1}],
        "Maxout units (D13)": [{"maxout_units": 1024}],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
        "C's order (D13)": ORDER,
    },
    "mmo": {
        "Maxout layers (D13)": [{"maxout_layers": 1}],
        "Dropout (D23)": [{"dropout": p} for p in (0.7, 0.5)],
        "Learning rate (D31)": [{"learning_rate": 2e-3, "classifier_learning_rate": 2e-3}],
        "Batch norm at evaluation (D9)": [{"batch_norm_eval": "running"}],
        "C's order (D13)": ORDER,
    },
    "gmu-wide": {},
    "pmmo-released": {},
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
    rows = ROWS if scale == "paper" else load_params(scale="demo").data.rows
    folder = WORK / (f"synthetic-{rows}" if source == "synthetic" else Path(source).stem)
    tensors = tensors_of(source, rows, folder)
    facts = json.loads((tensors / "movies.json").read_text())
    kind = "synthetic" if facts["provenance"]["kind"] == "synthetic" else "real"
    name = f"{kind}, {len(facts['ids']):,} movies, {len(facts['genres'])} genres"
    return Data(name, tensors, load_splits(tensors, choose_device("auto")))


def variants(scale: str) -> dict[str, Settings]:
    """The variants of params.yaml, and three more systems at the width of `pmmo-kl-l2-1024`."""
    rows = load_params(scale=scale).rows
    width = rows["pmmo-kl-l2-1024"].width
    narrow = {
        f"{row}-1024": replace(rows[row], width=width, maxout_units=width)
        for row in ("mmo", "gmu", "pmmo-released")
    }
    return {**rows, **narrow}


def dev_scores(settings: Settings, data: Data) -> tuple[list[float], list[int]]:
    """Weighted F1 on dev of each seed at its best epoch, and that epoch; 0 if training diverges."""
    store = WORK / "cycles" / cycle_key(settings, data.tensors)
    workers = number_of_workers(settings, choose_device(settings.device))
    try:
        cycles = [c.summary for c in run_cycles(settings, data.splits, store, workers)]
    except PmmoError as error:
        print(f"counted as 0: {error}", file=sys.stderr)
        return [0.0] * settings.cycles, [0] * settings.cycles
    return [c["dev"]["weighted"] for c in cycles], [c["best_epoch"] for c in cycles]


def study(data: Data, row: str, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A line per reading of a variant: dev scores, paired differences to the working reading."""
    settings = variants(arguments.scale)[row]
    epochs = arguments.epochs or settings.epochs
    base = replace(settings, cycles=arguments.seeds, epochs=epochs)
    readings: list[tuple[str, dict[str, object]]] = [("working reading", {})]
    for opening, others in OPENINGS[arguments.scale][row].items():
        if any(word.lower() in opening.lower() for word in arguments.openings):
            readings += [(opening, change) for change in others]
    plain = None
    for opening, change in readings:
        known = {key: value for key, value in asdict(base).items() if key in change}
        found, best = dev_scores(replace(base, **change), data)
        scores = pd.Series(found)
        plain = scores if plain is None else plain
        difference = scores - plain
        yield {
            "data": data.name,
            "seeds": arguments.seeds,
            "epochs": epochs,
            "row": row,
            "opening": opening,
            "reading": words(change),
            "instead_of": words(known),
            "best_epochs": " ".join(map(str, best)),
            "dev_weighted": scores.mean(),
            "sd": scores.std(),  # NaN for a single seed
            "difference": difference.mean(),
            "difference_sd": difference.std(),
        }


def measured(path: Path) -> pd.DataFrame:
    """The lines of the CSV; none if there is no such file."""
    if not path.exists():
        return pd.DataFrame()
    texts = dict.fromkeys(("reading", "instead_of", "best_epochs"), str)
    return pd.read_csv(path, dtype=texts).fillna(dict.fromkeys(texts, ""))


def add(line: dict[str, object], path: Path) -> None:
    """Add the line to the CSV, or put it in the place of an older one of the same reading."""
    lines = {
        tuple(other[key] for key in KEY): other
        for other in [*measured(path).to_dict("records"), line]
    }
    table = with_intervals(pd.DataFrame(list(lines.values())))
    write_text(path, table.to_csv(index=False, float_format="%.5f"))


def words(change: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {str(value).lower()}" for key, value in change.items())


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Add paired intervals with one standard deviation for all readings of a variant.

    A few seeds estimate a standard deviation poorly. The variance of a difference is therefore
    pooled over the readings of a variant, with 2 degrees of freedom from each of three seeds.
    A single seed has no interval.
    """
    others = table["reading"] != ""
    groups = table[others].groupby(list(KEY[:-1]))["difference_sd"]
    variance = groups.transform(lambda sd: np.mean(np.square(sd)))
    freedom = groups.transform("size") * (table["seeds"] - 1)
    reach = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(variance / table["seeds"])
    return table.assign(low=table["difference"] - reach, high=table["difference"] + reach)


def label(line: pd.Series) -> str:
    seeds = "1 seed" if line["seeds"] == 1 else f"{line['seeds']} seeds"
    return f"{line['data']}, {seeds}, {line['epochs']} epochs"


def to_markdown(table: pd.DataFrame, page: str) -> str:
    """One table per variant, with the data sets side by side."""
    table = table.assign(measured=table.apply(label, axis=1))
    text = [
        "# The openings, measured",
        "",
        f"Written by `python -m scripts.study_openings`; what it means: [{page}]({page}). "
        "Weighted F1 on dev at the best epoch, mean ± sd over the seeds; paired difference to the "
        f"working reading with a {LEVEL:.0%} interval, which a single seed does not have.",
    ]
    for row, lines in table.groupby("row", sort=False):
        names = list(lines["measured"].unique())
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
                cells += cells_of(pair[pair["measured"] == name])
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text).replace("-0.", "−0.")


def cells_of(lines: pd.DataFrame) -> list[str]:
    """Score, difference and verdict of the one line, or of none."""
    if lines.empty:
        return ["", "", ""]
    line = lines.iloc[0]
    one = line["seeds"] == 1
    score = f"{line['dev_weighted']:.3f}" + ("" if one else f" ± {line['sd']:.3f}")
    if not line["reading"]:
        return [score, "", ""]
    interval = "" if one else f" ({line['low']:+.3f} to {line['high']:+.3f})"
    verdict = "better" if line["low"] > 0 else "worse" if line["high"] < 0 else ""
    return [score, f"{line['difference']:+.3f}{interval}", verdict]


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the differences to the working reading with their intervals."""
    names = list(table["data"].unique())
    others = table[table["reading"] != ""]
    rows = list(others["row"].unique())
    readings_of = [others[others["row"] == row] for row in rows]
    counts = [lines["reading"].nunique() for lines in readings_of]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 1.6 + 0.2 * sum(counts)), layout="constrained")
        grid = figure.subplots(len(rows), 1, height_ratios=counts, squeeze=False)[:, 0]
        for axes, row, lines in zip(grid, rows, readings_of, strict=True):
            labels = list(lines["reading"].unique())
            for name, colour, marker, shift in zip(
                names, (BLUE, ORANGE), ("o", "s"), (-0.15, 0.15), strict=False
            ):
                own = lines[lines["data"] == name]
                place = np.array([labels.index(reading) for reading in own["reading"]]) + shift
                reach = (own["high"] - own["difference"]).fillna(0)  # a single seed has none
                axes.errorbar(
                    own["difference"], place, xerr=reach, fmt=marker, color=colour, ms=4, label=name
                )
            axes.axvline(0, color=INK, lw=0.9)
            axes.set_xlim(-0.2, 0.06)
            for number, (_, own) in enumerate(lines.groupby("reading", sort=False)):
                if (own["difference"] < -0.2).any():
                    note = " and ".join(f"{d:.2f}" for d in own["difference"]).replace("-", "−")
                    axes.text(-0.185, number, f"◂ {note}", va="center", size=7, color=GREY)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.set_title(f"{row}: one setting changed", weight="bold")
        handles = grid[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper right", ncols=len(names))
        grid[-1].set_xlabel(
            f"Difference in weighted F1 on dev ({LEVEL:.0%} intervals; one seed has none)"
        )
        figure.savefig(path.with_suffix(".png"), dpi=110)


def main(arguments: argparse.Namespace) -> None:
    prepare_process(choose_device("auto"))
    output, scale = arguments.output, arguments.scale
    for source in arguments.sources:
        data = prepare(source, scale)
        for row in arguments.variants or OPENINGS[scale]:
            for line in study(data, row, arguments):
                add(line, output.with_suffix(".csv"))
    table = measured(output.with_suffix(".csv"))
    write_text(output.with_name(f"{output.name}-table.md"), to_markdown(table, f"{output.name}.md"))
    if (table["reading"] != "").any():
        draw(table, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="synthetic, or the path of an HDF5 file")
    parser.add_argument("--scale", choices=tuple(OPENINGS), default="demo")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="instead of all studied")
    parser.add_argument(
        "--openings",
        nargs="*",
        metavar="WORD",
        default=[""],
        help="those whose name has one of these words (none: the working reading alone)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="one has no interval")
    parser.add_argument("--epochs", type=int, help="instead of the scale's")
    parser.add_argument("--output", type=Path, default=WORK / "openings")
    arguments = parser.parse_args()
    for name in arguments.variants or ():
        if name not in OPENINGS[arguments.scale]:
            parser.error(
                f"{name} is not studied; these are: {', '.join(OPENINGS[arguments.scale])}"
            )
    try:
        main(arguments)
    except PmmoError as error:
        sys.exit(f"study: {error}")
