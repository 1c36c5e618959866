"""Text for a terminal."""

import sys

__all__ = ["printable"]


def printable(text: str) -> str:
    """Escape what the encoding of the standard output lacks, such as bytes of a file name that are no text.

    Example::

        >>> printable("a\\udcff.png")
        'a\\\\udcff.png'
    """
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
