"""Names in figures: short, and only in characters that an installed font has.

matplotlib draws a box for a character without a glyph. `fonts_for` finds fonts that have what
DejaVu Sans lacks; a name that still cannot be drawn gives way to a stand-in, and stands in the
figure's CSV and on the page.
"""

from collections.abc import Iterable
from functools import cache

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font

from pmmo.core.text import printable

FONT = "DejaVu Sans"  # comes with matplotlib


@cache
def characters(path: str) -> frozenset[str]:
    """What a font file can draw; nothing for a file that cannot be read."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def known(family: str) -> frozenset[str]:
    """What a family can draw."""
    return characters(findfont(FontProperties(family=[family])))


def fonts_for(texts: Iterable[str]) -> list[str]:
    """DejaVu Sans and the installed families that have what it lacks of these texts."""
    missing = set("".join(map(printable, texts))) - known(FONT)
    families = [FONT]
    for path in sorted(findSystemFonts()) if missing else ():
        if has := missing & characters(path):
            fontManager.addfont(path)
            families.append(get_font(path).family_name)
            missing -= has
    return families


def drawable(text: str, longest: int, instead: str) -> str:
    """The text of at most `longest` characters, or the stand-in if it cannot be drawn here."""
    text = printable(text)
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    has = frozenset().union(*map(known, rcParams["font.family"]))
    return text if set(text) <= has else instead
