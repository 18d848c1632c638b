"""CSV and TSV: the movies read are the records of the file, or a row is refused."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmmo.core.errors import PmmoError
from pmmo.own_movies.tables import open_table

HEADER = ["id", "title", "genres", "text_0"]


def rows_of(path: Path) -> list[tuple[str, ...]]:
    """All rows, cells as text."""
    table = open_table(path)
    columns = list(table.types)
    cells = [piece.column(name).to_pylist() for piece in table.pieces(columns) for name in columns]
    step = len(columns)
    return [
        row for k in range(0, len(cells), step) for row in zip(*cells[k : k + step], strict=True)
    ]


def plain_rows(count: int = 9) -> list[list[str]]:
    return [[f"t{k}", f"Film {k}", "Drama", str(k / 2)] for k in range(count)]


def write(path: Path, rows: list[list[str]], mark: str = ",", coding: str = "utf-8") -> Path:
    """As they stand: nothing is put in quotes."""
    path.write_text("".join(mark.join(row) + "\n" for row in [HEADER, *rows]), encoding=coding)
    return path


STRAY = {
    "two that open": {2: '"Open quote', 7: '"Another'},
    "one that opens": {4: '"Open quote'},
    "one that opens, one that closes": {2: '"Open quote', 7: 'close"'},
    "neighbours": {3: '"Open', 4: 'close"'},
    "text after": {3: '"Quoted" and more'},
    "backslashes": {3: r'"He said \"no\" twice"'},
    "an empty one within": {2: '"Open', 4: '""', 7: 'close"'},
}


@pytest.mark.parametrize("kind", STRAY)
@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_a_stray_quote_joins_no_movies(tmp_path, kind, mark):
    rows = plain_rows()
    for number, title in STRAY[kind].items():
        rows[number][1] = title
    if mark == "\t":
        assert [row[1] for row in rows_of(write(tmp_path / "t.tsv", rows, mark))] == [
            "" if row[1] == '""' else row[1] for row in rows
        ]
        return
    with pytest.raises(PmmoError, match=rf"t.csv, row {min(STRAY[kind]) + 1}: its quotes"):
        rows_of(write(tmp_path / "t.csv", rows, mark))


CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.sampled_from('",;\t\\')
)


@settings(deadline=None)
@given(
    cells=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    mark=st.sampled_from(",;\t"),
    always=st.booleans(),
)
def test_what_a_csv_writer_wrote_is_read(tmp_path_factory, cells, mark, always):
    path = tmp_path_factory.mktemp("csv") / ("t.tsv" if mark == "\t" else "t.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        quoting = csv.QUOTE_ALL if always else csv.QUOTE_MINIMAL
        writer = csv.writer(file, delimiter=mark, quoting=quoting)
        writer.writerow(("a", "b", "c", "d"))
        writer.writerows(("x", *row, "y") for row in cells)
    assert rows_of(path) == [("x", *row, "y") for row in cells]


def test_cells_with_line_breaks_are_one_cell(tmp_path):
    rows = [["a", 'One,\n\ntwo, "three"\r\nand, so, on', "x", "1"], ["b", "", "y", "2"]]
    for name in ("t.csv", "t.tsv"):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if name == "t.tsv" else ",").writerows([HEADER, *rows])
        assert rows_of(tmp_path / name) == [tuple(row) for row in rows]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_codings_packing_and_line_ends(tmp_path, coding, packed, end):
    rows = [["tt1", "Élan", "剧情", "1"], ["tt2", "b", "c", "2"]]
    content = end.join(",".join(row) for row in [HEADER, *rows, []]).encode(coding)
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert rows_of(path) == [tuple(row) for row in rows]


def test_blank_lines_are_no_rows(tmp_path):
    for name, mark in (("t.csv", ","), ("t.tsv", "\t")):
        path = write(tmp_path / name, plain_rows(2), mark)
        path.write_text(path.read_text().replace("\n", "\n\n"))
        assert len(rows_of(path)) == 2


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pmmo.own_movies.delimited.LINE", 1000)
    path = write(tmp_path / "t.csv", [["a", "x" * 2000, "b", "c"]])
    with pytest.raises(PmmoError, match=r"t.csv, line 2: is longer than 1,000 characters"):
        rows_of(path)
    path = write(tmp_path / "t.csv", [["a", '"' + "x\n" * 2000 + '"', "b", "c"]])
    with pytest.raises(PmmoError, match=r"t.csv, row 1: .*field larger than field limit"):
        rows_of(path)


def test_pieces_of_any_size_keep_the_order(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", plain_rows(50))
    whole = rows_of(path)
    for cells in (1, 7, 44):
        monkeypatch.setattr("pmmo.own_movies.delimited.CELLS", cells)
        assert rows_of(path) == whole
    assert np.array(whole).shape == (50, 4)
