"""The images named in a text file, for collections whose folders take too long to search."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .image_files import FoundFiles, SkippedFile, image_endings

__all__ = ["is_image_list", "read_image_list"]

_ENDING = ".txt"


def is_image_list(item: str) -> bool:
    """Whether an input is a list of images, by its ending."""
    return item.lower().endswith(_ENDING) and not os.path.isdir(item)


def read_image_list(path: str | os.PathLike[str], endings: Sequence[str] | None = None) -> FoundFiles:
    """Read a list of images: one per line, absolute or relative to the list's folder. Empty lines are ignored.

    The images themselves are not accessed: one that is missing is reported when it is predicted.

    Args:
        path (str | PathLike): a text file in UTF-8.
        endings (Sequence[str] | None): of the files to read, in lower case; None =
            :func:`~dynpose.data.image_files.image_endings`.

    Returns:
        FoundFiles: in the order of the list. A name is the path in normalised form; of an absolute path and of one that
        leads out of the list's folder, it is the absolute path without the leading slash. Lines that repeat a name,
        and those without the ending of an image, are skipped.

    Raises:
        FileNotFoundError: the list does not exist or names no image.

    Example::

        >>> images, skipped = read_image_list("frames.txt")
    """
    folder = Path(os.path.abspath(path)).parent
    endings = image_endings() if endings is None else tuple(endings)
    images: dict[str, Path] = {}
    skipped = []
    for number, line in _lines(path):
        file = os.path.normpath(folder / line)
        name = os.path.normpath(line)
        if os.path.isabs(line) or name.startswith(".."):
            name = Path(file).as_posix().lstrip("/")
        if name in images:
            skipped.append(SkippedFile(f"{path}:{number}", f"repeats {name}", False))
        elif not name.lower().endswith(endings):
            ending = os.path.splitext(name)[1] or "no ending"
            skipped.append(SkippedFile(f"{path}:{number}", f"not an image that is read ({ending})", False))
        else:
            images[name] = Path(file)
    if not images:
        raise FileNotFoundError(f"{path}: the list names no images; images end in {' '.join(image_endings())}")
    return FoundFiles(list(images.items()), skipped)


def _lines(path) -> Iterator[tuple[int, str]]:
    # Linux allows any bytes in names of files
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if line := line.rstrip("\r\n"):
                yield number, line
