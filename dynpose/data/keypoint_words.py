"""Splitting a keypoint's name into words, and finding the words for left and right."""

import re
import unicodedata
from functools import lru_cache

__all__ = ["LEFT", "LETTERS", "RIGHT", "SIDE_WORDS", "UNMISTAKABLE", "glued_words", "own_words", "side_words"]

LEFT, RIGHT = "<left>", "<right>"
"""Replacements for words that mean left or right; no word has these characters."""

# fmt: off
# One line per language or convention, in the spelling that _fold returns. A word is paired only with words of the same
# line, so that "L_eye" is no partner of "right_eye". Ambiguous words ("der", "sin", "port") do no harm, as both sides
# must occur with an otherwise equal name.
_LINES = (
    ("left", "right"),
    ("lft lt lf", "rgt rht rt"),
    ("port portside", "starboard"),
    # German and Dutch
    ("links linker linke linkes linken linkem", "rechts rechter rechte rechtes rechten rechtem"),
    ("gauche gauches", "droite droit droites droits"),
    ("izq izquierda izquierdo izquierdas izquierdos izda izdo", "der derecha derecho derechas derechos dcha dcho"),
    # Italian and Latin
    ("sx sin sinistra sinistro sinister sinistrum", "dx dex destra destro dextra dexter dextrum"),
    ("esq esquerda esquerdo esquerra esquerre", "dir direita direito dreta dret"),
    # Swedish, Danish, Norwegian
    ("vanster venstre vanstra", "hoger hogra hojre hoyre"),
    # Polish, Czech, Slovak, Croatian, Serbian, Slovenian
    ("lewy lewa lewe levy leva leve lavy lava levo levi lijevi lijeva lijevo",
     "prawy prawa prawe pravy prava prave pravo pravi desni desna desno"),
    ("левыи левая левое лев лівии ліва ліве", "правыи правая правое прав правии права праве"),
    ("vasen vasemman", "oikea oikean"),
    ("stang stanga", "drept dreapta"),
    ("bal", "jobb"),
    ("αριστερα αριστερο αριστερη αριστερος", "δεξια δεξι δεξιο δεξιος"),
    ("左", "右"),
)
# fmt: on

SIDE_WORDS = {
    unicodedata.normalize("NFC", word): (line, side)
    for line, words in enumerate(_LINES)
    for side, of_side in zip((LEFT, RIGHT), words)
    for word in of_side.split()
}
"""Word -> (number of its line, LEFT or RIGHT)."""

LETTERS = {"l": (-1, LEFT), "r": (-1, RIGHT)}
"""The single letters, in the same form. They may have another meaning (the vertebra L1)."""

UNMISTAKABLE = frozenset(
    word for word in SIDE_WORDS if len(word) >= 5 or word in ("left", "lft", "rgt", "izq", "左", "右")
)
"""Words that are long or rare enough to be recognised inside a longer one ("der" is not: it is in "shoulder")."""

_ANY = "|".join(sorted(UNMISTAKABLE, key=len, reverse=True))
_INSIDE = re.compile(f"({_ANY})")
_AT_AN_END = re.compile(f"^({_ANY})|({_ANY})$")

# Over one class character per character of the name: A upper-case, a lower-case, 0 digit, x letter without case
_SHAPES = re.compile(r"A+(?!a)|A?a+|0+|x+")
_NOT_DECOMPOSED = str.maketrans("øłđı", "oldi")


@lru_cache(maxsize=4096)
def own_words(name: str) -> tuple[str, ...]:
    """The lower-case words of a name, split at separators, changes of case and digits, without accents.

    ``left_eye``, ``Left Eye`` and ``leftEye`` give ``("left", "eye")``, ``LEye2`` gives ``("l", "eye", "2")``, and
    ``lefteye`` is one word.
    """
    text = unicodedata.normalize("NFKC", str(name))
    shape = "".join(map(_kind, text))
    return tuple(_fold(text[match.start() : match.end()]) for match in _SHAPES.finditer(shape))


@lru_cache(maxsize=4096)
def glued_words(name: str) -> tuple[str, ...]:
    """:func:`own_words`, with long words for left and right split off longer ones: ``("left", "eye")``."""
    return tuple(part for word in own_words(name) for part in _INSIDE.split(word) if part)


def side_words(name: str) -> list[str]:
    """The words of a name that clearly mean a side: separate words, and those at an end of a longer word."""
    return [part for word in own_words(name) for part in _AT_AN_END.split(word) if part in UNMISTAKABLE]


def _kind(character):
    if character.isupper():
        return "A"
    if character.islower():
        return "a"
    if character.isdigit():
        return "0"
    return "x" if character.isalpha() or unicodedata.category(character)[0] == "M" else " "


def _fold(word):
    """Lower case, without the accents of Latin, Greek and Cyrillic letters."""
    decomposed = unicodedata.normalize("NFKD", word.casefold().translate(_NOT_DECOMPOSED))
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f"))
