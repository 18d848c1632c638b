"""Tables in LaTeX: as wide as a text column, with nothing in them that runs."""

import re
import unicodedata
from collections.abc import Mapping

from pmmo.core.text import printable
from pmmo.reporting.formats import Table, provenance, source

LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},
        **{"±": r"$\pm$", "−": "$-$", "λ": r"$\lambda$", "×": r"$\times$", "≥": r"$\ge$"},
        **{"–": "--", "…": r"\ldots{}"},
    }
)
ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
LONG_WORD, PIECE = 20, 8  # characters; a longer word may be broken between its pieces


def escape(text: str) -> str:
    """Text with LaTeX's special characters escaped and its long words breakable."""

    def word(match: re.Match) -> str:
        letters = [escape_letter(letter) for letter in match.group()]
        size = PIECE if len(letters) > LONG_WORD else LONG_WORD
        pieces = ["".join(letters[i : i + size]) for i in range(0, len(letters), size)]
        return r"\allowbreak{}".join(pieces)

    return re.sub(r"\S+", word, printable(text))


def escape_letter(letter: str) -> str:
    """One character; a question mark to pdfLaTeX where its usual fonts lack it."""
    first, *marks = list(unicodedata.normalize("NFD", letter))
    if ord(letter) in LATEX or letter in "ßæøåÆØÅœŒ" or (first.isascii() and {*marks} <= ACCENTS):
        return letter.translate(LATEX)
    return rf"\ifdefined\Umathchar {letter}\else ?\fi{{}}"  # XeLaTeX, LuaLaTeX: as it is


def cell(text: str) -> str:
    """A cell of numbers, with less room around its sign."""
    return escape(text.replace(" ± ", "±")).replace(r"$\pm$", r"\,$\pm$\,")


def to_latex(table: Table, numbers: Mapping) -> str:
    """A booktabs table as wide as a text column; needs \\usepackage{booktabs}.

    Where columns are in groups, a row's entries of a group stand below each other.
    """
    stacked = len(table.groups) > 2
    header = [heading for heading, _ in table.groups] if stacked else list(table.header)
    header[0] = table.header[0]
    per_group = table.groups[-1][1] if stacked else 1
    body = []
    for row in table.rows:
        for part in range(per_group):
            label = rf"\raggedright {escape(row[0])}"
            first = rf"\quad {escape(table.header[1 + part])}" if part else label
            body.append((first, *map(cell, row[1 + part :: per_group])))
    caption = " ".join((f"{table.title}.", *table.notes, f"Data: {source(numbers)}."))
    heading, columns = table.groups[-1]
    lines = [f"% {key}: {printable(value)}" for key, value in provenance(numbers).items()]
    lines += [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}"]
    lines += [rf"\label{{tab:{table.name}}}", r"\footnotesize\setlength{\tabcolsep}{3pt}"]
    lines += [rf"\begin{{tabular}}{{@{{}}p{{0.3\linewidth}}{'r' * (len(header) - 1)}@{{}}}}"]
    lines += [r"\toprule"]
    if not stacked:
        lines += [rf" & \multicolumn{{{columns}}}{{c}}{{{escape(heading)}}} \\"]
    lines += [" & ".join(map(escape, header)) + r" \\", r"\midrule"]
    lines += [" & ".join(cells) + r" \\" for cells in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])
