"""Write docs/published.md: which published scores on MM-IMDb compare with Table 1 here.

    python -m scripts.published_systems

The facts are in pmmo/published/systems.yaml, the sentences in published_systems.md.j2.
"""

import argparse
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, Undefined

from pmmo.core.names import AVERAGES
from pmmo.core.writing import write_text

ROOT = Path(__file__).parents[1]
FACTS = ROOT / "pmmo/published/systems.yaml"
PAGE = ROOT / "docs/published.md"


def page(audit: Mapping[str, Any]) -> str:
    """The document as Markdown."""
    systems = audit["systems"]
    everyone = list(systems.values())
    habits = [
        (text, [s["name"] for s in everyone if habit in s["comparable"]["habits"]])
        for habit, text in audit["habits"].items()
    ]
    unseen = [
        (name, [s["name"] for s in everyone if s["facts"][name]["value"] == "not seen"])
        for name in everyone[0]["facts"]
    ]

    def sources(fact: Mapping[str, Any]) -> str:
        return "; ".join(source(text, systems) for text in fact.get("source", [])) or "–"

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent))
    environment.filters |= {
        "anchor": anchor,
        "score": score,
        "sources": sources,
        "value": value,
        "wrap": wrap,
    }
    return environment.get_template("published_systems.md.j2").render(
        averages=list(AVERAGES),
        comparable=[s for s in everyone if s["comparable"]["answer"] == "yes"],
        criteria=audit["criteria"],
        habits=sorted(habits, key=lambda entry: len(entry[1]), reverse=True),
        systems=everyone,
        unseen=unseen,
    )


def source(text: str, systems: Mapping[str, Any]) -> str:
    """A file in code style before its commit; the name of another system instead of its key."""
    owner, _, rest = text.rpartition(": ")
    rest = re.sub(r"^(\S+)@(\w+)$", r"`\1` (\2)", rest)
    return f"{systems[owner]['name']}: {rest}" if owner else rest


def value(fact: Mapping[str, Any]) -> str:
    """A fact's value; thousands with a comma, but for a year."""
    found = fact["value"]
    if isinstance(found, list):
        return ", ".join(found)
    return f"{found:,}" if isinstance(found, int) and found > 3000 else str(found)


def score(number: float | Undefined) -> str:
    """Three digits, or four where the fourth is not 0; a dash where there is no number."""
    if isinstance(number, Undefined):
        return "–"
    return f"{number:.3f}" if round(number, 3) == number else f"{number:.4f}"


def anchor(title: str) -> str:
    """GitHub's name of a heading: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def wrap(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_text(PAGE, page(yaml.safe_load(FACTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
