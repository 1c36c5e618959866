"""Text on pictures, in any script that an installed font has.

OpenCV writes "?" for every character that is not ASCII, and Pillow an empty box for one that its font lacks. Here each
character is written in the first font that has it: DejaVu Sans, which comes with matplotlib, then the fonts of the
system. Pillow shapes and orders the text, for example Arabic, where it has Raqm.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import unicodedata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_text", "text_size"]

logger = logging.getLogger(__name__)

# Part of the font size above and below the baseline: enough for letters with marks in all scripts
_ASCENT, _DESCENT = 1.0, 0.3


def text_size(text: str, size: float) -> tuple[int, int]:
    """Width and height of a line of text.

    Args:
        text (str): one line.
        size (float): of the font, pixels.

    Returns:
        tuple[int, int]: pixels.
    """
    width = sum(_font(run.file, _whole(size)).getlength(run.text) for run in _runs(text))
    return math.ceil(width), round(_ASCENT * size) + round(_DESCENT * size)


def draw_text(
    image: np.ndarray,
    text: str,
    position: tuple[int, int],
    size: float,
    color: tuple[int, int, int],
    outline: tuple[int, int, int] | None = None,
) -> None:
    """Write a line of text on an image, in place; parts outside the image are cut off.

    A character that no installed font has is written as its code, such as [U+9F3B]; the log names it once.

    Args:
        image (ndarray): (H, W, 3) uint8.
        text (str): one line.
        position (tuple[int, int]): x and y of its upper left corner, pixels.
        size (float): of the font, pixels.
        color (tuple[int, int, int]): of the letters, in the image's channel order.
        outline (tuple[int, int, int] | None): of a line around the letters.
    """
    stroke = 0 if outline is None else max(1, round(size / 8))
    # letters may reach over their width, as in italics and Arabic
    margin = _whole(size)
    for stroke_width, tone in ((stroke, outline), (0, color)):
        if tone is not None:
            _blend(image, _mask(text, size, margin, stroke_width), position[0] - margin, position[1] - margin, tone)


def _mask(text, size, margin, stroke_width):
    """(h, w) coverage of the text with a margin around it, 0 to 255."""
    width, height = text_size(text, size)
    mask = Image.new("L", (width + 2 * margin, height + 2 * margin))
    writer, x = ImageDraw.Draw(mask), float(margin)
    for run in _runs(text):
        font = _font(run.file, _whole(size))
        at = (x, margin + round(_ASCENT * size))
        writer.text(at, run.text, 255, font, anchor="ls", stroke_width=stroke_width)
        x += font.getlength(run.text)
    return np.asarray(mask)


def _blend(image, mask, x, y, color):
    height, width = image.shape[:2]
    left, top = max(0, -x), max(0, -y)
    mask = mask[top : max(top, height - y), left : max(left, width - x)]
    if mask.size:
        region = image[y + top : y + top + mask.shape[0], x + left : x + left + mask.shape[1]]
        weight = mask[..., None] / 255.0
        region[:] = np.rint(region * (1 - weight) + np.array(color) * weight).astype(np.uint8)


class _Run(NamedTuple):
    """Neighbouring characters of one font."""

    text: str
    file: str


@functools.lru_cache(maxsize=512)
def _runs(text: str) -> tuple[_Run, ...]:
    """The runs of a text, in the order in which they are written from left to right."""
    runs: list[_Run] = []
    for character in text:
        if runs and (_is_format(character) or _has(runs[-1].file, character)):
            runs[-1] = _Run(runs[-1].text + character, runs[-1].file)
            continue
        file = _default_file() if _is_format(character) else _file_with(character)
        if file is None:
            character, file = f"[U+{ord(character):04X}]", _default_file()
        if runs and runs[-1].file == file:
            runs[-1] = _Run(runs[-1].text + character, file)
        else:
            runs.append(_Run(character, file))
    # Pillow orders the characters of a run; the runs of a text that starts from the right do so too
    return tuple(reversed(runs) if _starts_from_the_right(text) else runs)


def _is_format(character: str) -> bool:
    """Whether a character is invisible and steers the shaping or direction of its run, such as a joiner."""
    return unicodedata.category(character) == "Cf"


def _starts_from_the_right(text: str) -> bool:
    strong = (unicodedata.bidirectional(character) for character in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


@functools.lru_cache(maxsize=4096)
def _file_with(character: str) -> str | None:
    """The first font file with a character; None if there is none."""
    if unicodedata.category(character)[0] != "C":  # controls have no glyph
        if _has(_default_file(), character):
            return _default_file()
        for file in _files():
            if _has(file, character):
                return file
    _report_missing(character)
    return None


_reported: set[str] = set()


def _report_missing(character):
    """Log a character without a font; of a script, whose name starts that of its characters, only the first."""
    name = unicodedata.name(character, "UNNAMED CHARACTER")
    script = name.split()[0]
    if script not in _reported:
        _reported.add(script)
        logger.warning(
            "no installed font has the character U+%04X (%s), and perhaps others of its script: pictures show their "
            "codes; install a font with them, such as Noto Sans",
            ord(character),
            name,
        )


@functools.lru_cache(maxsize=65536)
def _has(file: str, character: str) -> bool:
    if character.isascii() and file == _default_file():
        # the most frequent case needs no matplotlib, whose import takes a quarter of a second
        return character.isprintable()
    face = _face(file)
    return face is not None and face.get_char_index(ord(character)) != 0


@functools.lru_cache(maxsize=32)
def _face(file):
    """matplotlib's reader of a font file, which knows its characters; None for a file that can't be used."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(file)
    except (OSError, RuntimeError):
        return None
    return face if face.scalable else None


@functools.cache
def _default_file() -> str:
    package = cast(ModuleSpec, importlib.util.find_spec("matplotlib"))
    return str(Path(cast(str, package.origin)).parent.joinpath("mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _files() -> tuple[str, ...]:
    """The font files in the order in which they are tried: upright sans-serif fonts of normal weight first."""
    from matplotlib import font_manager

    def rank(file):
        name = Path(file).stem.lower()
        is_plain = not any(word in name for word in ("bold", "italic", "oblique", "black", "light", "thin", "mono"))
        return not is_plain, "sans" not in name, file

    return (_default_file(), *sorted(font_manager.findSystemFonts(), key=rank))


@functools.lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def _whole(size: float) -> int:
    return max(1, round(size))
