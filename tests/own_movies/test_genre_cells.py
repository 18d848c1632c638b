"""Whatever a cell holds: the names in it and no others, or a refusal by row."""

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest

from pmmo.core.errors import PmmoError
from pmmo.own_movies.genre_cells import Seen, check_separator, flagged_genres, genres_of
from pmmo.own_movies.tables import Place, Table

PLACE = Place(Path("t.csv"), 3, "m2")


def names(cell: object, separator: str = "|") -> set[str]:
    return set(genres_of(cell, separator, PLACE, "genres", Seen()))


@pytest.mark.parametrize(
    "cell",
    [
        *("Drama|War", " War | Drama |", "|Drama|War", '["Drama", "War"]', "['Drama', 'War']"),
        *("('Drama', 'War')", "{'War', 'Drama'}", "['Drama' 'War']", "['Drama'\n 'War']"),
        *(
            "array(['Drama', 'War'], dtype=object)",
            "frozenset({'War', 'Drama'})",
            '[["Drama", "War"]]',
        ),
        *('{"/m/1": "Drama", "/m/2": "War"}', '[{"id": 18, "name": "Drama"}, {"name": "War"}]'),
        *("[{'id': 18, 'name': 'Drama'}, {'id': 1, 'name': 'War'}]", '["Drama", null, "War", ""]'),
        *(["Drama", "War"], ["War", None, "Drama"], [{"id": 18, "name": "Drama"}, {"name": "War"}]),
        *({"x": "Drama", "y": "War"}, "Drama|N/A|War", '["Drama", "War", "nan"]'),
    ],
)
def test_two_genres(cell):
    assert names(cell) == {"Drama", "War"}


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "",
            " ",
            None,
            "|",
            "[]",
            "{}",
            "()",
            "set()",
            "[[]]",
            [],
            [None],
            {},
            "(no genres listed)",
        ),
        *(r"\N", "N/A", "nan", "NaN", "None", "NULL", "<NA>", "#N/A", "-", '["N/A"]', "[null]"),
    ],
)
def test_no_genre(cell):
    assert names(cell) == set()


def test_words_for_no_genre_are_counted():
    seen = Seen()
    for cell in (r"\N", "Drama", r"\N", "N/A|Drama"):
        genres_of(cell, "|", PLACE, "genres", seen)
    assert seen.no_value == {r"\N": 2, "N/A": 1}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("{Drama,Comedy}", "'{Drama,Comedy}' list of names"),
        ("[Drama]", "list of names (it is neither JSON"),
        ("['Drama'", "list of names"),
        ("(Drama|War", "list of names"),
        ("['a' 'b' ... 'z']", "cut short '...'"),
        ("['a', ..., 'z']", "expected names"),
        ("[" * 100_000, "list of names"),
        ("[1, 2]", "expected names"),
        ('{"Drama": 1}', "expected names"),
        ('{"id": "18", "text": "Drama"}', "none of name, label"),
        ([b"Drama"], "expected names"),
        (1.5, "expected names"),
        ("Drama|(War)", "'(War)' bracket"),
        ("Drama|<b>", "'<b>' bracket"),
        ("Drama||War", "empty"),
        ("a\u202eb", "printable"),
        ("a\u200bb", "printable"),
        ("x" * 101, "printable at most 100"),
        ("drama|Drama", "one way"),
        ("9" * 5000 + "|[", "printable"),
        ("[" + "9" * 5000 + "]", "list of names"),
    ],
)
def test_what_is_no_name_is_refused_by_row(cell, words):
    with pytest.raises(PmmoError, match=r"^t.csv, row 3 \(id 'm2'\), column 'genres': ") as caught:
        names(cell)
    assert not [word for word in words.split() if word not in str(caught.value)], caught.value
    assert len(str(caught.value)) < 300


def test_the_unicode_forms_of_a_name_are_one_genre():
    assert names("Come\u0301die|Com\u00e9die") == {"Com\u00e9die"}


def test_columns_of_flags():
    seen = Seen()
    columns = ["Drama", "War", "Sci-Fi"]
    assert flagged_genres(["1", " 0", "1.0"], columns, PLACE, seen) == {"Drama", "Sci-Fi"}
    assert flagged_genres([True, False, 0], columns, PLACE, seen) == {"Drama"}
    assert flagged_genres([1.0, 1, 0.0], columns, PLACE, seen) == {"Drama", "War"}
    for bad in ("", None, "2", "yes", float("nan")):
        with pytest.raises(PmmoError, match=r"row 3 .*column 'War': .* expected 0 or 1"):
            flagged_genres(["1", bad, "0"], columns, PLACE, seen)


def check(cells: list[str], separator: str = "|") -> None:
    seen = Seen()
    for row, cell in enumerate(cells, 1):
        genres_of(cell, separator, Place(Path("t.csv"), row), "genres", seen)
    check_separator(seen, separator, Table(Path("t.csv"), {"genres": pa.string()}, iter), "genres")


@pytest.mark.parametrize("mark", [",", ", ", ";", "/", " / ", "、", "，"])
def test_genres_joined_by_another_separator_are_refused(mark):
    shown = re.escape(shlex.quote(mark.strip()))
    for cells in (
        ["Drama", f"Drama{mark}War", "War"],
        [f"Drama{mark}War", f"Drama{mark}Comedy"],
        ["Drama|War", f"Drama{mark}War"],
    ):
        with pytest.raises(
            PmmoError, match=rf"t.csv, row \d, .*looks like 2 .*--separator {shown};"
        ):
            check(cells)
    with pytest.raises(PmmoError, match=r"--separator '\|'"):
        check(["Drama", "Drama|War"], ",")


def test_names_that_hold_another_mark_are_names():
    check(["Children's/Family|Drama", "Family|Drama", "Sci-Fi|Drama & Co", "Sci-Fi"])
    check(["Action & Adventure", "Sci-Fi & Fantasy", "Action"])
    check(['["Drama, War"]', "Drama", "War"])
    check(["Rock, Paper", "Drama"])
