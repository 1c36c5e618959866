"""Text for a terminal of any encoding."""

import io
import sys

import pytest

from dynpose.utils.printing import printable


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "нос a\\udcff"), ("ascii", "\\u043d\\u043e\\u0441 a\\udcff"), ("koi8-r", "нос a\\udcff")],
)
def test_characters_that_the_terminal_lacks(monkeypatch, encoding, expected):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert printable("нос a\udcff") == expected
