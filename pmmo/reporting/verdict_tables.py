"""The tables behind the verdicts: claims, what each step adds, budgets of epochs, power."""

from collections.abc import Mapping

import pandas as pd

from pmmo.reporting.formats import UNTRAINED, Table, interval, is_synthetic, number, row_label

DIGITS = {"F1": 3, "genres": 0, "epochs": 1, "ratio": 2}
VERDICTS = {  # verdict -> its words in a count of several claims
    "holds": "hold",
    "does not hold": "do not hold",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "not decidable: a row did not train": "not decidable",
    "not run": "not run",
}
JUDGED = (
    *("key", "statement", "where", "measure", "unit", "paper"),
    *("ours", "low", "high", "threshold", "verdict", "p"),
)
SYNTHETIC_VERDICTS = (
    "The data is synthetic: these verdicts say that the pipeline works, and nothing about the "
    "paper."
)
NO_NUMBER = "none"  # of cycles or movies would be enough


def statement(claim: Mapping) -> str:
    """What is claimed, and which of its rows are missing, did not train or had not stopped."""
    marks = {
        "absent": claim["absent"],
        UNTRAINED: claim["untrained"],
        "still improving": claim["rising"],
    }
    return claim["statement"] + "".join(
        f" ({mark}: {', '.join(rows)})" for mark, rows in marks.items() if rows
    )


def measured(claim: Mapping) -> tuple[str, str, str]:
    """Our number, its interval and the paper's number."""
    digits, sign = DIGITS[claim["unit"]], claim["unit"] in ("F1", "epochs")
    return (
        number(claim["ours"], digits, sign),
        interval(claim, 1 if claim["unit"] == "genres" else digits, sign),
        number(claim["paper"], digits, sign),
    )


def count(claims: list[Mapping], key: str) -> str:
    """How many claims have each verdict."""
    return ", ".join(
        f"{sum(claim[key] == verdict for claim in claims)} {plural}"
        for verdict, plural in VERDICTS.items()
    )


def claims(numbers: Mapping) -> Table:
    """Each claim of the paper with its measure, interval and verdict."""
    found, level = numbers["claims"], f"{numbers['intervals']['level']:.0%}"
    rows = [
        (
            statement(claim),
            claim["verdict"],
            claim["verdict_holm"],
            *measured(claim),
            claim["measure"],
            claim["where"],
        )
        for claim in found
    ]
    notes = (
        *((SYNTHETIC_VERDICTS,) if is_synthetic(numbers) else ()),
        f"Verdicts: {count(found, 'verdict')}. With Holm's correction: "
        f"{count(found, 'verdict_holm')}.",
        f"A claim holds when its whole {level} interval lies above 0 "
        "(genres: above half of them), does not hold when it lies below, is equivalent when it "
        f"covers 0 and lies within ± {numbers['verdicts']['equivalent']:g} of F1, and is undecided "
        "otherwise; one that rests on a row that did not train is not decidable. With Holm's "
        f"correction all decided verdicts together are right with about {level} confidence. "
        "Differences are paired by movie and by cycle; the interval covers both sources of chance. "
        "Definitions: docs/claims.md.",
    )
    return Table(
        "claims",
        "The paper's claims",
        ("Claim", "Verdict", "With Holm", "Ours", "Interval", "Paper", "Measure", "Where"),
        tuple(rows),
        pd.DataFrame(found, columns=[*JUDGED, "p_holm", "verdict_holm"]),
        notes,
    )


def steps(numbers: Mapping) -> Table:
    """What each step from the GMU to PM+MO adds to the weighted F1 on test."""
    found = numbers["steps"]
    return Table(
        "steps",
        "What adds what: from the GMU to PM+MO",
        ("Step", "Verdict", "Ours", "Interval", "Paper"),
        tuple((statement(step), step["verdict"], *measured(step)) for step in found),
        pd.DataFrame(found, columns=JUDGED),
        (
            "Differences of weighted F1 on test, with the intervals of the claims: GMU → GMU with "
            "wide layers → M+MO → PM+MO (λKL + L2). The first three add up to the last. The paper "
            "prints no score of a wide GMU; from its GMU to its M+MO is −0.006.",
        ),
    )


def budget(numbers: Mapping) -> Table:
    """Whether each row had stopped improving on dev when its epochs ended."""
    facts = numbers["budget"]
    rows = [
        (
            row_label(numbers, name),
            str(row["epochs"]),
            ", ".join(map(str, row["best_epochs"])),
            number(row["rise"], sign=True),
            "yes" if row["stopped"] else "no",
        )
        for name, row in facts["rows"].items()
    ]
    frame = [
        {"variant": name}
        | row
        | {"best_epochs": " ".join(map(str, row["best_epochs"])), "margin": facts["margin"]}
        for name, row in facts["rows"].items()
    ]
    return Table(
        "budget",
        "Were there enough epochs?",
        ("System", "Epochs", "Kept epochs", "Rise of the last third", "Stopped improving"),
        tuple(rows),
        pd.DataFrame(frame),
        (
            "Rise: the best weighted F1 on dev in the last third of the epochs minus the best "
            "before, mean over the cycles. A row had stopped improving if that is at most "
            f"{facts['margin']:g}. A claim about one that had not is marked.",
        ),
    )


def power(numbers: Mapping) -> Table:
    """What these cycles and movies can show of each claim, and what MM-IMDb's could."""
    facts = numbers["power"]
    rows, frame = [], []
    for claim in facts["claims"]:
        digits = DIGITS[claim["unit"]] + (claim["unit"] == "F1")
        needed = claim["needed"] or {}
        rows.append(
            (
                claim["statement"],
                *(percent(share) for share in claim["shares"].values()),
                number(claim["smallest"], digits),
                number(claim["paper"], digits),
                *(enough(needed, kind) for kind in ("cycles", "movies")),
                *(number(design["smallest"], digits) for design in claim["published"]),
                enough(needed, "published_cycles"),
            )
        )
        frame.append(
            {key: claim[key] for key in ("key", "unit", "paper", "cycles", "movies")}
            | {f"share_{source}": share for source, share in claim["shares"].items()}
            | {key: claim[key] for key in ("half_width", "smallest")}
            | {f"{kind}_needed": needed.get(kind) for kind in ("cycles", "movies")}
            | {"mmimdb_movies": claim["published_movies"]}
            | {
                f"mmimdb_{key}_{design['cycles']}": design[key]
                for key in ("half_width", "smallest")
                for design in claim["published"]
            }
            | {"mmimdb_cycles_needed": needed.get("published_cycles")}
        )
    designs = [design["cycles"] for claim in facts["claims"][:1] for design in claim["published"]]
    return Table(
        "power",
        "Power: which differences these cycles and movies can show",
        (
            *("Claim", "Cycles %", "Movies %", "Both %", "Smallest here", "Paper"),
            *("Cycles needed", "Movies needed"),
            *(f"MM-IMDb, {cycles} cycles" for cycles in designs),
            "Cycles needed there",
        ),
        tuple(rows),
        pd.DataFrame(frame),
        power_notes(numbers),
    )


def power_notes(numbers: Mapping) -> tuple[str, ...]:
    """How to read the table of power."""
    facts, level = numbers["power"], f"{numbers['intervals']['level']:.0%}"
    if not facts["claims"]:
        return ("Nothing to predict: a prediction needs two cycles or more of a claim's rows.",)
    low, high = facts["factors"]
    return (
        "Cycles, movies, both: where the variance of the difference comes from. Smallest: the true "
        f"difference that a {level} interval shows to be above 0 with probability "
        f"{facts['power']:g}, with as many cycles and movies as here, and on MM-IMDb's test movies "
        "(claims about dev: its dev movies). Needed: cycles with these movies, or movies with "
        "these cycles, that would show the paper's difference with that probability; "
        f"{NO_NUMBER}: no number is enough, because the other source remains. Of a claim about "
        "several differences, the smallest is meant.",
        f"With {facts['claims'][0]['cycles']} cycles a standard deviation over cycles is known up "
        f"to a factor of {number(low, 1)} to {number(high, 1)} ({level}), and so is what follows "
        "from it. The shares come from random draws of movies. Where a needed number is above 50, "
        "other draws may give several times as many, or none. The predictions take differences "
        "to vary with MM-IMDb's movies as with these. Explained in docs/power.md.",
    )


def percent(share: float | None) -> str:
    return number(None if share is None else 100 * share, 0)


def enough(needed: Mapping, kind: str) -> str:
    """A number of cycles or movies; a dash where the paper prints no difference."""
    if kind not in needed:
        return number(None)
    return NO_NUMBER if needed[kind] is None else f"{needed[kind]:,}"


def power_check(numbers: Mapping) -> Table:
    """Half-widths predicted from fewer movies or cycles, beside those observed."""
    found = numbers["power"]["check"]
    rows = [
        (
            f"{line['movies']:,} movies, {line['cycles']} cycles",
            number(line["predicted"], 4),
            number(line["observed"], 4),
            f"{number(line['lowest'], 2)} to {number(line['highest'], 2)}",
        )
        for line in found
    ]
    pairs = found[0]["pairs"] if found else 0
    return Table(
        "power_check",
        "The predictions checked: the half-width on all movies and cycles",
        ("Predicted from", "Predicted", "Observed", "Single predictions / observed"),
        tuple(rows),
        pd.DataFrame(found),
        (
            f"Half-widths of the interval of a weighted F1 difference on test, from the mean "
            f"variances of all {pairs} pairs of rows of Tables 1 and 2 and of all pieces; single "
            "predictions, from one pair and one piece: 5 % to 95 % of them. Fewer cycles have the "
            "same mean variance by construction; their line shows how far one prediction may be "
            "off.",
        )
        if found
        else ("Nothing to check: it needs two rows, two cycles and more movies.",),
    )
