"""The genres of a movie, from whatever its cells hold: names, lists, objects, or words for none."""

import ast
import json
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from unicodedata import normalize

from pmmo.core.text import hides
from pmmo.hdf5.layout_checks import GENRES, NAME_LENGTH
from pmmo.own_movies.printed import is_call, unwrapped
from pmmo.own_movies.tables import Place, Table

NO_VALUE = {  # what programs write where there is no value, in lower case
    *("(no genres listed)", "\\n", "n/a", "#n/a", "na", "<na>", "n.a.", "nan", "none", "null"),
    *("nil", "-", "--", "?"),
}
BRACKETS = tuple("[({<")
LABELS = ("name", "label", "title", "genre")  # keys of an object that hold its name
MARKS = ",;/|、，；／｜"  # what people put between genres
MARKS_IN_NAMES = "\\+&·•:"  # rarely; more often a part of one name
UNSEPARATED = re.compile(r"(['\"])\s+(?=['\"])")  # numpy prints ['Drama' 'War']
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


@dataclass(frozen=True)
class Seen:
    """What the cells so far have shown; each cell adds to it."""

    spelled: dict[str, tuple[str, int]] = field(default_factory=dict)  # lower case -> name, row
    in_text: set[str] = field(default_factory=set)  # names that came from text, not from a list
    separated: list[int] = field(default_factory=list)  # rows whose text has several names
    no_value: Counter[str] = field(default_factory=Counter)  # words that stand for no genre


def genres_of(
    cell: object, separator: str, place: Place, column: str, seen: Seen
) -> frozenset[str]:
    """The genres of one movie, none for an empty cell; PmmoError for what is no name."""
    if isinstance(cell, str) and not is_list(cell):
        parts = cell.split(separator)
        names = names_of(parts, place, column, seen)
        seen.in_text.update(names)
        if len(parts) > 1:
            seen.separated.append(place.row)
        return names
    try:
        items = list(labels(read_list(cell) if isinstance(cell, str) else cell))
    except (ValueError, RecursionError) as error:
        why = "it was cut short where '...' stands" if "..." in str(cell) else str(error)[:100]
        raise place.refusal(
            column, f"{cell!r:.60} cannot be read as a list of names ({why})."
        ) from None
    found = [item for item in items if isinstance(item, str)]
    if len(found) < len(items):
        raise place.refusal(
            column, f"{cell!r:.60}; expected names with {separator!r} between, or a list of names."
        )
    return names_of(found, place, column, seen)


def flagged_genres(
    cells: Sequence[object], columns: Sequence[str], place: Place, seen: Seen
) -> frozenset[str]:
    """The genres of one movie by columns of 0 and 1 that are called as the genres."""
    found = []
    for cell, column in zip(cells, columns, strict=True):
        flag = FLAGS.get(str(cell).strip().lower())
        if flag is None:
            raise place.refusal(column, f"{cell!r:.60}; expected 0 or 1.")
        if flag:
            found.append(column)
    return names_of(found, place, columns[0], seen)


def is_list(text: str) -> bool:
    text = text.strip()
    return text.lower() not in NO_VALUE and (text.startswith(("[", "(", "{")) or is_call(text))


def read_list(text: str) -> object:
    """What a text in JSON, or as Python or numpy print it, stands for; ValueError if nothing."""
    text = unwrapped(text.strip())
    with suppress(ValueError):
        return json.loads(text)
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes in strings
            return ast.literal_eval(UNSEPARATED.sub(r"\1, ", text))
    except (ValueError, SyntaxError, TypeError, MemoryError):
        raise ValueError("it is neither JSON nor Python") from None


def labels(value: object) -> Iterator[object]:
    """The names within lists and objects; ValueError for an object that has no label."""
    if isinstance(value, dict):
        yield from labels(label_of(value))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from labels(item)
    elif value is not None:
        yield value


def label_of(thing: dict) -> object:
    """An object's name or, of one from ids to names, all names."""
    for key in LABELS:
        if key in thing:
            return thing[key]
    if "id" in thing:
        raise ValueError(f"an object has none of {', '.join(LABELS)}")
    return list(thing.values())


def names_of(found: Iterable[str], place: Place, column: str, seen: Seen) -> frozenset[str]:
    """The names without empty ends and words for none; PmmoError for one that cannot be a name.

    A name has one Unicode form. One in another case than before is refused: it would count as
    another genre.
    """
    names = [normalize("NFC", name).strip() for name in found]
    filled = [position for position, name in enumerate(names) if name]
    names = names[filled[0] : filled[-1] + 1] if filled else []
    if "" in names:
        raise place.refusal(column, "a name is empty between two others.")
    seen.no_value.update(name for name in names if name.lower() in NO_VALUE)
    names = [name for name in names if name.lower() not in NO_VALUE]
    for name in names:
        if hides(name) or len(name) > NAME_LENGTH or name.startswith(BRACKETS):
            raise place.refusal(
                column,
                f"{name!r:.60} is not a printable name of a genre, of at most {NAME_LENGTH} "
                "characters and without a bracket at its start.",
            )
        known, row = seen.spelled.setdefault(name.casefold(), (name, place.row))
        if known != name:
            raise place.refusal(
                column, f"{name!r} is {known!r} in row {row}. Write a genre in one way."
            )
    if len(seen.spelled) > GENRES:
        raise place.refusal(column, f"there are more than {GENRES:,} genres. Is it the right one?")
    return frozenset(names)


def check_separator(seen: Seen, separator: str, table: Table, column: str) -> None:
    """PmmoError where a name is several genres with something else than `separator` between.

    Such are names whose parts are all genres themselves and, where `separator` never occurs, names
    that share a part.
    """
    for mark in (MARKS + MARKS_IN_NAMES).replace(separator.strip() or " ", ""):
        joined = {name: parts_of(name, mark) for name in seen.in_text if mark in name}
        uses = Counter(part for parts in joined.values() for part in parts)
        for name, parts in sorted(joined.items()):
            known = [part in seen.spelled for part in parts]
            shared = any(known) or any(uses[part] > 1 for part in parts)
            alone = not seen.separated and mark in MARKS
            if len(parts) > 1 and (all(known) or (alone and shared)):
                place = Place(table.path, seen.spelled[name.casefold()][1])
                raise place.refusal(
                    column,
                    f"{name!r:.60} looks like {len(parts)} genres. Write one separator throughout "
                    f"and name it: --separator {shlex.quote(mark)}; or write names as JSON lists.",
                )


def parts_of(name: str, mark: str) -> set[str]:
    return {part.strip() for part in name.casefold().split(mark)} - {""}


def count_genres(genres: Iterable[frozenset[str]]) -> Counter[str]:
    """The number of movies of each genre."""
    return Counter(name for names in genres for name in names)


def genre_names(genres: Iterable[frozenset[str]]) -> tuple[str, ...]:
    """All names, the most frequent first, as in the published file; equals by the alphabet."""
    counts = count_genres(genres)
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))
