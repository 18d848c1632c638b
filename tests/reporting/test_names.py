"""Names as others write them, through every report: figures, tables, LaTeX, CSV, the page."""

import json
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import rc_context
from matplotlib.font_manager import fontManager

from pmmo.reporting.figures import fonts, render, undrawn
from pmmo.reporting.formats import cell, markdown
from pmmo.reporting.latex import escape
from pmmo.reporting.style import genre_names
from stages import aggregate, report
from tests.fake_runs import write_all, write_settings
from tests.nasty_names import NAMES

GENRES = {"Drama": 9000, **dict.fromkeys(NAMES.values(), 3000), "喜剧片": 2000}
ROWS = [
    ("gmu", "GMU $\\alpha$ | <i>x</i>\n\\end{table}\\input{/etc/passwd}"),
    ("mmo", "@M+MO " + "long" * 30),
    ("pmmo-kl-l2", "PM+MO 变分 Ελληνικά Łódź đąþ é ü ő č å ß \u2067&%"),
]
SOURCE = "/data/a_b$c%\n\\input{/etc/passwd}\u202e剧/" + "d" * 120 + ".hdf5"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Reports of a few rows with names that harm whoever takes them as they are."""
    root = tmp_path_factory.mktemp("names")
    write_all(root, movies=120, cycles=1, epochs=6, variants=ROWS, genres=GENRES)
    path = root / "data/tensors/movies.json"
    facts = json.loads(path.read_text())
    facts["provenance"] |= {"kind": "file", "source": SOURCE, "note": "a note\u202e <script>"}
    path.write_text(json.dumps(facts))
    write_settings(root, ROWS)
    with pytest.MonkeyPatch.context() as patch:  # the same on every machine: no other font
        patch.setattr("pmmo.reporting.drawing_text.findSystemFonts", list)
        aggregate.main(root)
        report.main(root)  # a glyph that is missing would be a warning, and so an error here
    return root


@pytest.fixture(scope="module")
def numbers(root) -> dict:
    return report.numbers_of(root / "reports")


def reports(root: Path, *kinds: str) -> dict[str, str]:
    paths = [path for path in (root / "reports").rglob("*.*") if path.suffix[1:] in kinds]
    assert paths
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_no_report_has_a_character_that_is_not_seen(root):
    for name, text in reports(root, "md", "csv", "tex", "html", "json", "svg").items():
        found = {c for c in text if unicodedata.category(c)[0] == "C"} - {"\n"}
        assert found == set(), name


def test_markdown_keeps_its_columns_and_shows_names_as_they_are(root):
    for name, text in reports(root, "md").items():
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, name
        assert not re.search(r"(?<!\\)<i>", text), name
    assert markdown(r"$\foo$") == r"\$\\foo\$"
    assert markdown("a_b.hdf5 _c_ R&B &amp;") == r"a_b.hdf5 \_c\_ R&B \&amp;"
    assert r"GMU \$\\alpha\$ \| \<i\>x\</i\>" in reports(root, "md")["table1.md"]


def test_latex_has_no_command_that_a_name_brought(root):
    ours = r"\\(begin|end|centering|caption|label|footnotesize|setlength|tabcolsep|linewidth)\b"
    ours += r"|\\(toprule|midrule|bottomrule|multicolumn|raggedright|quad|allowbreak|pm|lambda)\b"
    ours += r"|\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\b"
    ours += r"|\\(ldots|ge|times|ifdefined|Umathchar|else|fi)\b|\\[\\,&%$#_{}]"
    for name, text in reports(root, "tex").items():
        code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        assert "\\" not in re.sub(ours, "", code), name
        assert code.count(r"\end{table}") == code.count(r"\begin{table}") == 1
        bare = re.sub(r"\\.", "", code)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a_b & 5% #1 $", r"a\_b \& 5\% \#1 \$"),
        ("~^<>|", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"),
        ("one\ntwo", "one two"),
        ("λKL − 1 ≥ 2", r"$\lambda$KL $-$ 1 $\ge$ 2"),
        ("a" * 21, r"aaaaaaaa\allowbreak{}aaaaaaaa\allowbreak{}aaaaa"),
        ("Comédie čő", "Comédie čő"),
        ("剧", r"\ifdefined\Umathchar 剧\else ?\fi{}"),
    ],
)
def test_latex_of_its_special_characters(text, code):
    assert escape(text) == code


def test_csv_keeps_names_but_runs_in_no_spreadsheet(root):
    for path in (root / "reports").rglob("*.csv"):
        frame, name = pd.read_csv(path, dtype=str), path.name
        assert len(frame) == len(path.read_text(encoding="utf-8").splitlines()) - 1, name
        for column in frame.select_dtypes(["object", "str"]):
            for value in frame[column].dropna():
                number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value)
                assert number or not value.startswith(("=", "+", "-", "@")), (name, value)
    genres = pd.read_csv(root / "reports/figures/figure3.csv")["genre"].tolist()
    assert {"Drama", r"$\foo$", "剧情", "喜剧片", '\'=HYPERLINK("x")', "'-1", "(no name)"} <= {
        *genres
    }
    assert cell("+1") == "'+1"
    assert cell(-1.5) == -1.5


def test_the_page_takes_no_name_for_html(root):
    page = reports(root, "html")["index.html"]
    assert "<i>x" not in page
    assert "<b>h" not in page
    assert "<script" not in page
    assert "&lt;i&gt;x" in page


def test_a_name_without_a_font_is_numbered_and_stands_beside_the_figure(root, numbers, monkeypatch):
    monkeypatch.setattr("pmmo.reporting.drawing_text.findSystemFonts", list)
    with rc_context(fonts(numbers)):
        shown = dict(zip(numbers["data"]["genres"], genre_names(numbers), strict=True))
    assert (shown["Drama"], shown[r"$\foo$"]) == ("Drama", r"$\foo$")
    places = {name: f"genre {place}" for place, name in enumerate(numbers["data"]["genres"], 1)}
    for name in ("剧情", "喜剧片"):
        assert shown[name] == places[name]
        assert f"{places[name]}: {name}" in undrawn(numbers)
    captions = re.findall(
        "<figcaption>(genre .*?)</figcaption>", reports(root, "html")["index.html"]
    )
    assert len(captions) == 3
    assert all(f"{places['剧情']}: 剧情" in caption for caption in captions)


def font_with(characters: str, path: Path) -> None:
    """A font whose glyphs are one square."""
    pen = TTGlyphPen(None)
    for place, point in enumerate([(50, 0), (50, 700), (750, 700), (750, 0)]):
        (pen.lineTo if place else pen.moveTo)(point)
    pen.closePath()
    square, builder = pen.glyph(), FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"u{ord(c):x}" for c in characters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):x}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares of the tests", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


def test_an_installed_font_draws_what_dejavu_lacks(numbers, tmp_path, monkeypatch):
    without = render(numbers, "figure1")["png"]
    path = tmp_path / "squares.ttf"
    font_with("剧情喜片变分🎬", path)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    files = [str(tmp_path / "broken.ttf"), str(path)]
    monkeypatch.setattr("pmmo.reporting.drawing_text.findSystemFonts", lambda: files)
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    found = fonts(numbers)
    assert found["font.family"] == ["DejaVu Sans", "Squares of the tests"]
    with rc_context(found):
        assert {"剧情", "喜剧片"} <= set(genre_names(numbers))
    assert undrawn(numbers) == ""
    assert render(numbers, "figure1")["png"] != without


# --- LaTeX in a text column ----------------------------------------------------------------------

DOCUMENT = r"\documentclass{%s}\usepackage{booktabs}\begin{document}%s\end{document}"


@pytest.mark.parametrize("kind", ["article", "llncs"])
def test_latex_tables_compile_in_a_text_column(root, tmp_path, kind):
    compiler = shutil.which("pdflatex")
    if (
        compiler is None
        or not subprocess.run(["kpsewhich", f"{kind}.cls"], capture_output=True, check=False).stdout
    ):
        pytest.skip(f"no pdflatex with {kind} on this machine")
    committed = Path(__file__).parent.parent.parent / "reports/tables"
    made = list((root / "reports/tables").glob("*.tex"))
    assert len(made) == 5
    tables = [*committed.glob("*.tex"), *made]
    text = "\n".join(path.read_text(encoding="utf-8") for path in tables)
    (tmp_path / "tables.tex").write_text(DOCUMENT % (kind, text), encoding="utf-8")
    done = subprocess.run(
        [compiler, "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log
    assert "Overfull" not in log, log
