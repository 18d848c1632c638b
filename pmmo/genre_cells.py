"""Genres as a table's cells have them: a list, a JSON list, or names with a separator."""

import json
from collections import Counter
from collections.abc import Iterable

from pmmo.checks import GENRES, NAME_LENGTH
from pmmo.own_tables import Place


def genres_of(
    cell: object, separator: str, place: Place, column: str, spelled: dict[str, tuple[str, int]]
) -> frozenset[str]:
    """The genres of one movie, none for an empty cell; PmmoError for what is no name.

    `spelled` remembers how each genre was written first (lower case -> name, row) and is added to:
    the same genre in another case is refused, for it would count as another.
    """
    names = frozenset(split_cell(cell, separator, place, column))
    for name in sorted(names):
        if not name.isprintable() or len(name) > NAME_LENGTH:
            raise place.refusal(column, f"{name!r:.60} is not a printable name of a genre.")
        known, row = spelled.setdefault(name.casefold(), (name, place.row))
        if known != name:
            raise place.refusal(
                column, f"{name!r} is {known!r} in row {row}. Write a genre in one way."
            )
    if len(spelled) > GENRES:
        raise place.refusal(column, f"there are more than {GENRES:,} genres. Is it the right one?")
    return names


def split_cell(cell: object, separator: str, place: Place, column: str) -> list[str]:
    if cell is None:
        return []
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise place.refusal(column, f"{cell!r:.60} is not a JSON list of names.") from None
    elif isinstance(cell, str):
        cell = cell.split(separator) if cell.strip() else []
    if not isinstance(cell, list) or not all(isinstance(name, str) for name in cell):
        raise place.refusal(
            column, f"{cell!r:.60}; expected names with {separator!r} between, or a list of names."
        )
    names = [name.strip() for name in cell]
    if "" in names:
        raise place.refusal(column, f"a name is empty in {cell!r:.60}.")
    return names


def genre_names(genres: Iterable[frozenset[str]]) -> tuple[str, ...]:
    """All names, the most frequent first, as in the published file; equals by the alphabet."""
    counts = Counter(name for names in genres for name in names)
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))
