"""Text on pictures: its place and size, and characters that few fonts have."""

import logging
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from dynpose.utils import text
from dynpose.utils.text import draw_text, text_size

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def drawn(line, size=20, position=(5, 5), shape=(40, 400), **more):
    image = np.zeros((*shape, 3), np.uint8)
    draw_text(image, line, position, size, WHITE, **more)
    return image


@pytest.fixture
def only_default_font(monkeypatch):
    monkeypatch.setattr(text, "_files", lambda: (text._default_file(),))
    for cached in (text._runs, text._file_with):
        cached.cache_clear()
    text._reported.clear()
    yield
    for cached in (text._runs, text._file_with):
        cached.cache_clear()


def by_pillow(line, size=20, position=(5, 5), shape=(40, 400)):
    image = Image.new("L", shape[::-1])
    font = ImageFont.truetype(text._default_file(), size)
    ImageDraw.Draw(image).text((position[0], position[1] + size), line, 255, font, anchor="ls")
    return np.asarray(image)


@pytest.mark.parametrize("line", ["person 0.87", "Ёжик", "شخص 12", "\N{LEFT-TO-RIGHT MARK}3 أذن"])
def test_a_line_of_one_font_is_pillows(line):
    assert np.array_equal(drawn(line)[..., 0], by_pillow(line))


def test_text_is_inside_its_size():
    width, height = text_size("Àjq|(", 20)
    rows, columns = drawn("Àjq|(").any(axis=2).nonzero()
    assert rows.min() >= 5
    assert rows.max() < 5 + height
    assert 5 <= columns.min() <= columns.max() <= 5 + width


@pytest.mark.parametrize("position", [(-15, 5), (395, 5), (5, -12), (5, 35), (-500, 5), (5, 500)])
def test_text_at_an_edge_is_cut_off(position):
    large = np.zeros((1100, 1400, 3), np.uint8)
    draw_text(large, "person", (position[0] + 500, position[1] + 500), 20, WHITE)
    assert np.array_equal(drawn("person", position=position), large[500:540, 500:900])


def test_colours_and_outline():
    image = np.full((40, 200, 3), 128, np.uint8)
    draw_text(image, "III", (5, 5), 30, (255, 0, 0), outline=(0, 0, 255))
    assert (image == (255, 0, 0)).all(axis=2).any()
    assert (image == (0, 0, 255)).all(axis=2).any()


@pytest.mark.usefixtures("only_default_font")
def test_a_character_without_a_font_is_written_as_its_code(caplog):
    with caplog.at_level(logging.WARNING):
        shown = drawn("a人物व\x1b")
    assert np.array_equal(shown, drawn("a[U+4EBA][U+7269][U+0935][U+001B]"))
    messages = [record.getMessage() for record in caplog.records]
    # each script once
    assert [message.split("character ")[1].split(",")[0] for message in messages] == [
        "U+4EBA (CJK UNIFIED IDEOGRAPH-4EBA)",
        "U+0935 (DEVANAGARI LETTER VA)",
        "U+001B (UNNAMED CHARACTER)",
    ]
    assert "install a font" in messages[0]


def test_a_character_is_written_in_the_first_font_that_has_it(monkeypatch):
    """Stands in for the fonts of a system: matplotlib's cmsy10 has no letters, STIX has the script ones."""
    folder = text._default_file().rsplit("/", 1)[0]
    stix = f"{folder}/STIXGeneral.ttf"
    monkeypatch.setattr(text, "_files", lambda: (text._default_file(), f"{folder}/cmsy10.ttf", stix))
    letter = "\N{MATHEMATICAL SCRIPT CAPITAL A}"
    assert not text._has(text._default_file(), letter)
    text._file_with.cache_clear()
    runs = text._runs(f"x{letter}\N{ZERO WIDTH JOINER}")
    assert [(run.text, run.file) for run in runs] == [
        ("x", text._default_file()),
        (f"{letter}\N{ZERO WIDTH JOINER}", stix),
    ]
    text._runs.cache_clear()
    text._file_with.cache_clear()


def test_runs_of_a_script_from_the_right_are_in_its_order(monkeypatch):
    folder = text._default_file().rsplit("/", 1)[0]
    monkeypatch.setattr(text, "_files", lambda: (text._default_file(), f"{folder}/STIXGeneral.ttf"))
    text._file_with.cache_clear()
    letter = "\N{MATHEMATICAL SCRIPT CAPITAL A}"
    assert [run.text for run in text._runs(f"شخص{letter}")] == [letter, "شخص"]
    text._runs.cache_clear()
    text._file_with.cache_clear()


def test_the_default_font_has_what_is_taken_for_granted():
    """Printable ASCII is not looked up, and the font is found without importing matplotlib."""
    assert text._default_file() == str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    face = FT2Font(text._default_file())
    for code in range(128):
        has = text._has(text._default_file(), chr(code))
        assert has == chr(code).isprintable()
        assert not has or face.get_char_index(code) != 0
