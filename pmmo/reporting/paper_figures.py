"""Figures 1, 2 and 3 of the paper, and a figure of the differences that the paper prints."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pmmo.published import paper
from pmmo.published.mmimdb import GENRE_COUNTS
from pmmo.reporting.style import (
    BLUE,
    GREY,
    INK,
    RED,
    SYSTEMS,
    Drawn,
    band,
    canvas,
    cycles,
    drawn_genres,
    genre_names,
    label,
    list_down,
    shorter,
    titled,
)


def figure1(numbers: Mapping) -> Drawn:
    """Movies per genre, most frequent first."""
    data = numbers["data"]
    triples = zip(data["counts"], data["genres"], genre_names(numbers), strict=True)
    counts, genres, names = zip(*sorted(triples, key=lambda triple: -triple[0]), strict=True)
    drawn, note = drawn_genres(numbers)
    figure, axes = canvas(6.2, 1.2 + 0.19 * len(drawn), lines=2 if note else 1)
    place = np.arange(len(drawn))
    axes.barh(place, counts[: len(drawn)], color=BLUE, height=0.72)
    list_down(axes, names[: len(drawn)])
    for y, count in zip(place, counts, strict=False):
        axes.annotate(
            f"{count:,}", (count, y), (3, 0), textcoords="offset points", va="center", size=7.5
        )
    axes.set_xlim(0, 1.1 * max(*counts, 1))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Movies (a movie has one or more genres)")
    titled(figure, numbers, "Figure 1. Movies per genre", note.strip())
    frame = pd.DataFrame({"genre": genres, "movies": counts})
    frame["published"] = frame["genre"].map(dict(GENRE_COUNTS)).astype("Int64")
    return figure, frame


def figure2(numbers: Mapping) -> Drawn:
    """Dev weighted F1 of the GMU with and without regularisation, to one epoch after the best."""
    figure, axes = canvas(6.2, 3.7, lines=3)
    frames, peaks = [], []
    for name, colour, dashes in (("gmu", BLUE, "-"), ("gmu-unregularised", RED, "--")):
        if name not in numbers["curves"]:
            continue
        curve = numbers["curves"][name]
        mean, sd = band(curve["dev_weighted"])
        best = int(np.nanargmax(mean))
        shown = slice(0, best + 2)
        epoch = np.array(curve["epoch"])[shown]
        axes.fill_between(
            epoch, (mean - sd)[shown], (mean + sd)[shown], color=colour, alpha=0.18, lw=0
        )
        axes.plot(epoch, mean[shown], color=colour, ls=dashes, label=label(numbers, name))
        axes.plot(curve["epoch"][best], mean[best], "o", color=colour, ms=5)
        axes.annotate(
            f"{mean[best]:.3f} at epoch {curve['epoch'][best]}",
            (curve["epoch"][best], mean[best]),
            (0, 7),
            textcoords="offset points",
            ha="right",
            color=colour,
            size=8,
        )
        frames.append(
            pd.DataFrame({"variant": name, "epoch": epoch, "mean": mean[shown], "sd": sd[shown]})
        )
        peaks.append(f"{np.mean(numbers['variants'][name]['best_epochs']):.1f}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Weighted F1 on dev")
    axes.margins(y=0.12)
    axes.legend(loc="lower right")
    titled(
        figure,
        numbers,
        "Figure 2. The GMU with and without regularisation",
        f"Mean ± standard deviation over {cycles(numbers)} cycles, to the mean's best epoch + 1.\n"
        f"Mean of the best epochs of the cycles: {' and '.join(peaks) or '–'}.",
    )
    return figure, pd.concat(frames) if frames else pd.DataFrame()


def figure3(numbers: Mapping) -> Drawn:
    """F1 by genre of PM+MO and the GMU."""
    genres = numbers["data"]["genres"]
    names = [name for name in ("pmmo-kl-l2", "gmu") if name in numbers["genres"]]
    drawn, note = drawn_genres(numbers)
    figure, axes = canvas(6.2, 1.5 + 0.21 * len(drawn), lines=3 if note else 2)
    frame = pd.DataFrame({"genre": genres})
    place = np.arange(len(drawn))
    for name, shift in zip(names, (-0.15, 0.15), strict=False):
        mean, sd = band(numbers["genres"][name])
        colour, marker = SYSTEMS[name]
        axes.errorbar(
            mean[drawn],
            place + shift,
            xerr=sd[drawn],
            fmt=marker,
            color=colour,
            ms=4.5,
            elinewidth=1.2,
            capsize=2,
            label=label(numbers, name),
        )
        frame[f"{name}_mean"], frame[f"{name}_sd"] = mean, numbers["genres"][name]["sd"]
    axes.axvline(0.5, color=GREY, lw=0.9, ls=":")
    axes.set_xlim(left=max(-0.02, axes.get_xlim()[0]))
    list_down(axes, np.array(genre_names(numbers))[drawn])
    axes.set_xlabel("F1 of the genre on test (dotted line: 0.5)")
    detail = f"Mean ± standard deviation over {cycles(numbers)} cycles."
    if len(names) == 2:
        ahead = int((frame["pmmo-kl-l2_mean"] > frame["gmu_mean"]).sum())
        detail += f" PM+MO is higher on {ahead} of {len(genres)} genres"
        detail += f" (paper: {paper.GENRES_WON} of {paper.GENRES})."
    axes.legend(loc="upper left" if len(names) < 2 else "best")
    titled(figure, numbers, "Figure 3. F1 by genre: PM+MO and the GMU", detail + note)
    return figure, frame


def differences(numbers: Mapping) -> Drawn:
    """The printed differences, with ours, their intervals and verdicts."""
    shown = [
        claim
        for claim in numbers["claims"]
        if claim["unit"] == "F1" and claim["paper"] is not None and claim["ours"] is not None
    ]
    figure, axes = canvas(8.2, 1.6 + 0.3 * len(shown), lines=2)
    marks = {"holds": (BLUE, "o"), "does not hold": (RED, "X")}
    for place, claim in enumerate(shown):
        colour, marker = marks.get(claim["verdict"], (GREY, "s"))
        low, high = (claim[end] if claim[end] is not None else np.nan for end in ("low", "high"))
        axes.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(claim["ours"], place, marker, color=colour, ms=6)
        axes.plot(claim["paper"], place, "D", mec=INK, mfc="none", ms=5, mew=1)
        axes.text(
            1.01,
            place,
            claim["verdict"].partition(":")[0],
            transform=axes.get_yaxis_transform(),
            va="center",
            color=colour if claim["verdict"] in marks else INK,
            size=8,
        )
    axes.axvline(0, color=INK, lw=0.9)
    list_down(axes, [shorter(claim["statement"]) for claim in shown])
    axes.set_xlabel("F1 difference in favour of the claim (diamonds: as printed)")
    titled(
        figure,
        numbers,
        "F-score differences, printed and measured",
        f"Paired difference and {numbers['intervals']['level']:.0%} interval over movies and "
        f"{cycles(numbers)} cycles.",
    )
    columns = ["key", "ours", "low", "high", "paper", "verdict"]
    return figure, pd.DataFrame(shown, columns=columns)
