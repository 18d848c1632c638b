"""Names as the careless write them, and those who mean harm; for every door of the project."""

import re
import unicodedata

from pmmo.core.text import INVISIBLE

NAMES = {
    "mathtext": r"$\foo$",
    "dollar": "$",
    "markdown": "a|b `c` *d* _e_ [f](g)",
    "html": "<b>h</b> &amp; <script>alert(1)</script>",
    "latex": r"{x} 100% #1 ~ ^ \input{/etc/passwd}",
    "end of a table": "\\end{table}\\input{/etc/passwd}",
    "template": "{{ 7 * 7 }} {0} {name} %s %(x)s",
    "quotes": 'it\'s "so" called; a,b\tc',
    "formula": '=HYPERLINK("x")',
    "plus": "+1",
    "minus": "-1",
    "at": "@SUM(1)",
    "option": "--output",
    "path": "../../etc/passwd",
    "bidi": "evil\u202eexe.gpj",
    "isolate": "a\u2067b\u2069",
    "zero width": "a\u200bb\u2060c\ufeff",
    "filler": "a\u3164b\u2800c",
    "joiner": "a\u034fb\ufe0f",
    "tags": "a\U000e0041\U000e0101b",
    "lines": "two\nlines\r\nand\x0bmore\u2028end",
    "escape": "\x1b[31mred\x1b[2J\x07\x9b",
    "zero": "a\0b",
    "surrogate": "a\udcff\ud800b",
    "private": "a\ue000\U000f0000b\uffff",
    "spaces": " \u00a0a\u3000 b ",
    "accents": "Come\u0301die",
    "flood": "Z" + "\u0301" * 60,
    "chinese": "剧情",
    "arabic": "دراما",
    "emoji": "🎬 film",
    "long": "x" * 300,
    "longer": "word " * 2000,
    "empty": "",
    "blank": " \u200b",
}
LONGEST = 3100  # characters of a message or of a line


def assert_seen(text: str) -> None:
    """Every line shows all that it has, and has an end."""
    for line in text.split("\n"):
        hidden = [c for c in line if unicodedata.category(c)[0] == "C" or INVISIBLE.match(c)]
        assert not hidden, text
        assert not re.search("[\u2028\u2029]", line), text
        assert len(line) < LONGEST, text
