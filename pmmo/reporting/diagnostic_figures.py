"""Figures with one panel per variant: learning curves, reliability, gates."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pmmo.reporting.formats import number
from pmmo.reporting.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    SYSTEMS,
    Drawn,
    band,
    cycles,
    drawn_genres,
    genre_names,
    label,
    list_down,
    panels,
    sheet,
    titled,
)


def learning_curves(numbers: Mapping) -> Drawn:
    """Weighted F1 on train and dev by epoch, for every variant."""
    names = list(numbers["curves"])
    figure, grid = panels(numbers, names, 1.65)
    frames = []
    for axes, name in zip(grid, names, strict=True):
        curve = numbers["curves"][name]
        for column, colour, dashes in (
            ("train_weighted", GREY, "--"),
            ("dev_weighted", BLUE, "-"),
        ):
            if column not in curve:
                continue
            mean, sd = band(curve[column])
            axes.fill_between(curve["epoch"], mean - sd, mean + sd, color=colour, alpha=0.22, lw=0)
            axes.plot(curve["epoch"], mean, color=colour, ls=dashes, label=column.split("_")[0])
            frames.append(
                pd.DataFrame(
                    {
                        "variant": name,
                        "split": column.split("_")[0],
                        "epoch": curve["epoch"],
                        "mean": mean,
                        "sd": curve[column]["sd"],
                    }
                )
            )
        best = numbers["variants"][name]["best_epochs"]
        axes.plot(best, np.full(len(best), 0.0), "|", color=RED, ms=7, mew=1.2, clip_on=False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    top = max((f["mean"] + f["sd"].fillna(0)).max() for f in frames)
    grid[0].set_ylim(0, min(1.0, max(1.06 * top, 0.05)))
    figure.supxlabel("Epoch (red ticks: the epoch kept in each cycle)", size=8.5)
    figure.supylabel("Weighted F1", size=8.5)
    grid[0].legend(loc="lower right", fontsize=8)
    titled(
        figure,
        numbers,
        "Learning curves",
        f"Mean ± standard deviation over {cycles(numbers)} cycles.",
    )
    return figure, pd.concat(frames)


def reliability(numbers: Mapping) -> Drawn:
    """Observed frequency by forecast, for every variant."""
    names = list(numbers["calibration"])
    figure, grid = panels(numbers, names, 1.75)
    frames = []
    for axes, name in zip(grid, names, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=":")
        kinds = numbers["calibration"][name]
        for kind, colour, marker in (("samples", ORANGE, "s"), ("prediction", BLUE, "o")):
            if kind not in kinds:
                continue
            curve = kinds[kind]["reliability"]
            axes.plot(
                curve["predicted"],
                curve["observed"],
                color=colour,
                marker=marker,
                ms=2.8,
                lw=1.1,
                label={"samples": "K samples", "prediction": "row's own"}[kind],
            )
            frames.append(pd.DataFrame({"variant": name, "prediction": kind} | curve))
        error = kinds["prediction"]["ece"]["mean"]
        # left of the curves: only probabilities that are far too low would put a curve here
        axes.text(0.05, 0.55, f"ECE {number(error)}", size=8, transform=axes.transAxes)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    figure.supxlabel("Forecast probability (15 equal bins)", size=8.5)
    figure.supylabel("Observed frequency", size=8.5)
    grid[0].legend(loc="upper left", fontsize=7)
    titled(
        figure,
        numbers,
        "Reliability",
        f"All (movie, genre) pairs of the test movies, {cycles(numbers)} cycles pooled.",
    )
    return figure, pd.concat(frames)


def gates(numbers: Mapping) -> Drawn:
    """Mean gate by genre, beside the scores without one of the inputs."""
    genres = numbers["data"]["genres"]
    names = [name for name in SYSTEMS if numbers["gates"].get(name)]
    drawn, note = drawn_genres(numbers)
    figure = sheet(8.2, 1.6 + 0.19 * len(drawn), 0.97 if note else 0.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    place = np.arange(len(drawn))
    kinds = ("both", "text only", "image only")
    frames = []
    for name, shift in zip(names, (-0.2, 0, 0.2), strict=False):
        colour, marker = SYSTEMS[name]
        mean, sd = band(numbers["gates"][name]["genres"])
        left.errorbar(
            mean[drawn],
            place + shift,
            xerr=sd[drawn],
            fmt=marker,
            color=colour,
            ms=4,
            elinewidth=1,
            capsize=0,
        )
        left.axvline(numbers["gates"][name]["overall"]["mean"], color=colour, lw=0.8, ls=":")
        frames.append(pd.DataFrame({"variant": name, "genre": genres, "gate": mean, "gate_sd": sd}))
        entry = numbers["ablation"][name]
        shown = [i for i, kind in enumerate(kinds) if kind in entry]
        mean = np.array([entry[kinds[i]]["mean"] for i in shown])
        sd = np.nan_to_num(np.array([entry[kinds[i]]["sd"] for i in shown], dtype=float))
        right.errorbar(
            np.array(shown) + shift,
            mean,
            yerr=sd,
            fmt=marker,
            color=colour,
            ms=5,
            capsize=2,
            label=label(numbers, name),
        )
    list_down(left, np.array(genre_names(numbers))[drawn])
    left.set_xlabel("Mean gate: 0 text … 1 image (dotted: all movies)")
    right.set_xticks(range(3), ["text and\nimage", "text\nonly", "image\nonly"])
    right.set_xlim(-0.5, 2.5)
    right.set_ylim(bottom=0)
    right.grid(axis="x", visible=False)
    right.set_ylabel("Weighted F1 on test")
    right.legend(loc="lower left")
    titled(
        figure,
        numbers,
        "What the systems look at",
        "Gate by genre of the movie (left); scores with the other input at its training mean "
        f"(right). Mean ± sd over {cycles(numbers)} cycles." + note,
    )
    return figure, pd.concat(frames) if frames else pd.DataFrame()
