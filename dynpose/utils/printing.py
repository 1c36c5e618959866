"""Text for a terminal."""

import sys

__all__ = ["counted", "printable"]


def printable(text: str) -> str:
    """Escape what the encoding of the standard output lacks, such as bytes of a file name that are no text.

    Example::

        >>> printable("a\\udcff.png")
        'a\\\\udcff.png'
    """
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the singular for 1.

    Example::

        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
