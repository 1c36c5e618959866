"""The image files of folders and globs: every file found is either an image to read or listed with a reason."""

import fnmatch
import functools
import glob
import itertools
import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image, features

__all__ = ["FoundFiles", "SkippedFile", "find_images", "frames_note", "image_endings", "is_animation"]

_ENDINGS = (".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pillow's formats that may hold a sequence. MPO is not among them: its further images are other views of the first.
_SEQUENCES = {"AVIF": "frames", "GIF": "frames", "PNG": "frames", "TIFF": "pages", "WEBP": "frames"}
# Endings of the formats whose sequences are animations
_ANIMATIONS = (".apng", ".avif", ".gif", ".png", ".webp")


class SkippedFile(NamedTuple):
    """A file or folder that is not read."""

    name: str
    """Same form as an image name in :class:`FoundFiles`; the name of a folder ends with a slash."""
    reason: str
    is_failure: bool
    """The file is, or the folder may hold, an image that should have been read."""


class FoundFiles(NamedTuple):
    """The files that a list of inputs leads to."""

    images: list[tuple[str, Path]]
    """The unique name of each image, which is its path below the deepest folder that holds all
    inputs, and its absolute path. Every image occurs once, in the order of the inputs."""
    skipped: list[SkippedFile]
    """All other files."""


def image_endings() -> tuple[str, ...]:
    """The file name endings of supported images.

    Returns:
        tuple[str]: in lower case, with the dot. Includes AVIF if the installed Pillow decodes it.
    """
    return (*_ENDINGS, ".avif") if features.check("avif") else _ENDINGS


def find_images(inputs: Sequence[str], skip: Path | None = None, endings: Sequence[str] | None = None) -> FoundFiles:
    """Find the images of files, folders and globs, and list all other files.

    Links to files and folders are followed. A file with several names is returned once, under the name with the fewest
    links; the other names are listed as skipped.

    Args:
        inputs (Sequence[str]): image files, folders (searched recursively), or globs (including ``**``). A glob stands
            for the files that it matches, as in a shell.
        skip (Path | None): a folder of results, absolute. It is silently skipped inside an input. If it is itself an
            input, only its files ``predictions.json*`` and ``predictions-0*`` are skipped.
        endings (Sequence[str] | None): of the files to find, in lower case; None = :func:`image_endings`.

    Returns:
        FoundFiles: the images, and the skipped files: other endings, pipes and devices, dangling links, unreadable
        folders, second names.

    Raises:
        FileNotFoundError: an input does not exist, has no image ending, or holds no images.

    Example::

        >>> images, skipped = find_images(["holiday"])
    """
    endings = image_endings() if endings is None else tuple(endings)
    expanded = [_expand(item, skip, endings) for item in inputs]
    base = os.path.commonpath([root for _, root in expanded])
    real_paths = _RealPaths()
    names, images, skipped = _choose_names(expanded, real_paths), {}, {}
    for entries, root in expanded:
        for path, reason, is_failure in entries:
            name = path.relative_to(base).as_posix()
            if reason is not None:
                name += "/" if os.path.isdir(path) else ""
                skipped[name] = SkippedFile(name, reason, is_failure)
            elif (chosen := names[real_paths.of(path)]) == path:
                images[name] = path
            elif (link := _first_link(path.parent, root)) is None:
                skipped[name] = SkippedFile(name, f"the same file as {chosen.relative_to(base).as_posix()}", False)
            else:
                name = link.relative_to(base).as_posix() + "/"
                skipped[name] = SkippedFile(name, _same_folder(link), False)
    return FoundFiles(list(images.items()), list(skipped.values()))


def frames_note(path: Path | str | IO[bytes]) -> str | None:
    """Say that an image file holds more images than the one that is read.

    Args:
        path (str | PathLike | IO[bytes]): a readable image, or its open file.

    Returns:
        str | None: such as "the first of 3 pages"; None for a single image.
    """
    try:
        with Image.open(path) as image:
            number = getattr(image, "n_frames", 1) if image.format in _SEQUENCES else 1
            return f"the first of {number} {_SEQUENCES[image.format]}" if number > 1 else None
    except Exception:  # decoders raise any exception if the data after the first image is corrupt
        return None


def is_animation(path: Path | str) -> bool:
    """Whether a file is an animated GIF, PNG, WebP or AVIF image. Files of other endings are not opened.

    Args:
        path (str | PathLike): of any file.
    """
    if not str(path).lower().endswith(_ANIMATIONS):
        return False
    try:
        with Image.open(path) as image:
            return image.format in _SEQUENCES and getattr(image, "n_frames", 1) > 1
    except Exception:  # decoders raise any exception on corrupt files, which the reader of images reports
        return False


def _expand(item, skip, endings):
    """The files of one input, sorted by path, and the folder that names are relative to.

    Returns:
        tuple[list, Path]: a list of (absolute path, reason for skipping, whether that is a failure), with None as the
        reason for an image; and the folder.
    """
    path = Path(os.path.abspath(item))
    if path.is_dir():
        entries, root = _walk(path, skip, endings), path
    elif os.path.lexists(path):
        entries, root = [_classify(path, endings)], path.parent
    elif glob.has_magic(item):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        entries = _match(path, root, skip, endings)
    else:
        raise FileNotFoundError(f"{item}: no such image or folder (KEY VALUE overrides go after another option)")
    entries = sorted(entries, key=lambda entry: entry[0])
    if all(reason is not None for _, reason, _ in entries):
        reasons = [f"; {path}: {reason}" for path, reason, is_failure in entries if is_failure or len(entries) == 1]
        raise FileNotFoundError(
            f"{item}: no images there; images end in {' '.join(image_endings())}"
            + (f", videos in {' '.join(videos)}" if (videos := sorted({*endings} - {*image_endings()})) else "")
            + "".join(reasons[:1])
        )
    return entries, root


def _match(pattern, root, skip, endings):
    """The files that match a pattern below a folder, and the folders that a search for ``**`` can't enter."""
    parts = pattern.relative_to(root).parts
    # glob.glob follows cyclic links until the system refuses, and practically never ends with two of them
    first = parts.index("**") if "**" in parts else len(parts)
    matches = [Path(match) for match in glob.glob(str(root.joinpath(*parts[:first])))]
    if skip is not None and root in skip.parents:
        matches = [match for match in matches if skip not in (match, *match.parents)]
    if first == len(parts):
        return [_classify(match, endings) for match in matches if not os.path.isdir(match)]
    found = [(folder, entry) for folder in matches if os.path.isdir(folder) for entry in _walk(folder, skip, endings)]
    return [
        entry
        for folder, entry in found
        if os.path.isdir(entry[0]) or _fits(entry[0].relative_to(folder).parts, parts[first:])
    ]


def _fits(names, patterns):
    """Whether the parts of a path match those of a pattern, by the rules of the module glob."""
    if not patterns:
        return not names
    if patterns[0] == "**" and _fits(names, patterns[1:]):
        return True
    if not names or (names[0].startswith(".") and not patterns[0].startswith(".")):
        return False
    if patterns[0] == "**":
        return _fits(names[1:], patterns)
    return fnmatch.fnmatch(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _walk(root, skip, endings):
    """Walk a folder, visiting each folder once: real subfolders before link targets."""
    seen, folders, links, entries = set(), deque([root]), deque(), []
    real_skip = skip and os.path.realpath(skip)
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(folder)
        if real == real_skip and folder != root:
            continue
        if real in seen:
            entries.append((folder, _same_folder(folder), False))
            continue
        seen.add(real)
        try:
            inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            entries.append((folder, f"the folder can't be read ({error.strerror})", True))
            continue
        for entry in inside:
            path = folder / entry.name
            if os.path.isdir(path):
                (links if entry.is_symlink() else folders).append(path)
            elif real != real_skip or not entry.name.startswith(("predictions.json", "predictions-0")):
                entries.append(_classify(path, endings))
    return entries


def _classify(path, endings):
    ending = path.suffix.lower()
    is_image = ending in endings
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        where = "a dangling link" if os.path.islink(path) else "it can't be accessed"
        return path, f"{where} ({error.strerror})", is_image
    if not is_file:
        return path, "not a file but a pipe, socket or device", False
    return path, None if is_image else f"not an image that is read ({ending or 'no ending'})", False


def _choose_names(expanded, real_paths):
    """Map the real path of each image to the path under which it is returned."""
    names = {}
    for entries, root in expanded:
        real_root = os.path.realpath(root)
        images = [path for path, reason, _ in entries if reason is None]
        is_link = {path: real_paths.of(path) != os.path.join(real_root, path.relative_to(root)) for path in images}
        for path in sorted(images, key=lambda path: (is_link[path], len(path.parts), path)):
            names.setdefault(real_paths.of(path), path)
    return names


def _first_link(folder, root):
    """The uppermost link among the folders from the root down to a folder; None if none is a link."""
    below = [root / part for part in (folder.relative_to(root), *folder.relative_to(root).parents) if part.parts]
    return next((path for path in reversed(below) if os.path.islink(path)), None)


def _same_folder(folder):
    return f"this is the folder {os.path.realpath(folder)}, whose files are listed under another name"


class _RealPaths:
    """Resolves links in the paths of many files in few folders."""

    def __init__(self):
        self._folder = functools.cache(os.path.realpath)

    def of(self, path):
        return os.path.realpath(path) if os.path.islink(path) else os.path.join(self._folder(path.parent), path.name)
