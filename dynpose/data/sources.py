"""What can be predicted: files, folders, globs, lists, archives, videos, cameras, URLs, and standard input."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit

from PIL import Image

from dynpose.config import ConfigError

from .any_image import is_url
from .archives import archive_name, find_archives, is_archive
from .faults import Fault
from .image_files import SkippedFile, find_images, image_endings, is_animation
from .image_lists import is_image_list, read_image_list

__all__ = ["FoundSources", "Source", "find_sources", "tell_animations", "video_endings"]

_VIDEO_ENDINGS = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
)
_ONLY_ANIMATIONS = (".apng", ".gif")
_STREAMS = ("rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "udp")
_CAMERA = re.compile(r"(?:camera:)?(\d+)")
_STDIN = "-"
# Bytes of standard input that tell its kind
_START = 4096


class Source(NamedTuple):
    """An image, several images in one file, or a moving source."""

    name: str
    """Unique, the path of its result in a folder of results."""
    location: Path | str | int
    """Of a file its absolute path, of a URL its text, of a camera its number."""
    kind: str
    """"image", "archive" (images in a tar file), "video", "animation" (an image with several frames), "stream" (a live
    video) or "camera"."""


class FoundSources(NamedTuple):
    """What a list of inputs leads to."""

    sources: list[Source]
    """Files and the lines of lists in the order of the inputs, then standard input, URLs, cameras and archives in
    their order. Animations count as images, see :func:`tell_animations`."""
    skipped: list[SkippedFile]
    """All other files, see :class:`~dynpose.data.image_files.FoundFiles`."""


def video_endings() -> tuple[str, ...]:
    """The file name endings of videos, in lower case, with the dot.

    Returns:
        tuple[str]: those that are read as videos.
    """
    return _VIDEO_ENDINGS


def find_sources(
    inputs: Sequence[str], spool: Path, skip: Path | None = None, stdin: IO[bytes] | None = None
) -> FoundSources:
    """Find the images, videos, archives, cameras and streams that inputs stand for.

    - Files, folders and globs are those of :func:`~dynpose.data.image_files.find_images`, with videos.
    - A file that ends in .txt is a list of images and videos, see :func:`~dynpose.data.image_lists.read_image_list`.
    - A tar archive of images, see :func:`~dynpose.data.archives.find_archives`.
    - A number, or ``camera:`` and a number, is a camera, unless a file has that name.
    - ``-`` is standard input: an image, a video, or the names of inputs, one in a line or ended by a zero byte.
    - An http(s) URL is an image, or a video if its path ends as one; .m3u8 and the schemes of streams are live videos.

    Args:
        inputs (Sequence[str])
        spool (Path): an existing folder that takes an image or a video of standard input.
        skip (Path | None): a folder of results, see ``find_images``.
        stdin (IO[bytes] | None): None = the process's.

    Returns:
        FoundSources: every source once.

    Raises:
        FileNotFoundError: an input does not exist or leads to nothing.
        DatasetError: standard input is empty, a terminal, or of another kind.
        ConfigError: two sources have the same name, or webdataset, which reads archives, is not installed.
    """
    endings = (*image_endings(), *_ONLY_ANIMATIONS, *_VIDEO_ENDINGS)
    files, archives = [], []
    listed, others, skipped = [], [], []
    for item in _expand_stdin(inputs, spool, stdin):
        if isinstance(item, Source):
            others.append(item)
        elif is_archive(item):
            archives.append(item)
        elif is_image_list(item):
            found = read_image_list(item, endings)
            listed += [_of_file(*file) for file in found.images]
            skipped += found.skipped
        elif (special := _special(item)) is not None:
            others.append(special)
        else:
            files.append(item)
    if files:
        found = find_images(files, skip, endings)
        listed = [_of_file(*file) for file in found.images] + listed
        skipped = found.skipped + skipped
    if archives:
        others += [Source(archive_name(archive), archive, "archive") for archive in find_archives(archives)]
    return FoundSources(_each_once([*listed, *others]), skipped)


def tell_animations(sources: Sequence[Source]) -> list[Source]:
    """Tell animated images from others, by opening the files whose format may hold an animation.

    It is apart from :func:`find_sources`, since a process opens the files of its own share only.

    Args:
        sources (Sequence[Source])

    Returns:
        list[Source]: the same, with the kind "animation" for these.
    """
    return [
        source._replace(kind="animation")
        if source.kind == "image" and isinstance(source.location, Path) and is_animation(source.location)
        else source
        for source in sources
    ]


def _expand_stdin(inputs, spool, stdin):
    """Yield the inputs, with those that standard input names, or the source that it is."""
    for item in inputs:
        if item == _STDIN:
            source, names = _read_stdin(spool, stdin or sys.stdin.buffer)
            yield from names if source is None else [source]
        else:
            yield item


def _each_once(sources):
    unique: dict[str, Source] = {}
    for source in sources:
        other = unique.setdefault(source.name, source)
        if other.location != source.location:
            raise ConfigError(
                f"--input: {other.location} and {source.location} would both be called {source.name} in the results: "
                "predict them in two runs, with an --output each"
            )
    return list(unique.values())


def _special(item):
    """The source that is not a file; None for a file, a folder or a glob."""
    if os.path.lexists(item):
        return None
    camera = _CAMERA.fullmatch(item)
    if camera:
        return Source(f"camera_{camera[1]}", int(camera[1]), "camera")
    scheme, _, rest = item.partition("://")
    if rest and scheme.lower() in _STREAMS:
        return Source(_name_of_url(item, ""), item, "stream")
    if not is_url(item):
        return None
    ending = os.path.splitext(urlsplit(item).path)[1].lower()
    if ending == ".m3u8":
        return Source(_name_of_url(item, ""), item, "stream")
    if ending in _VIDEO_ENDINGS:
        return Source(_name_of_url(item, ending), item, "video")
    # Pictures of images without an ending are JPEG files
    return Source(_name_of_url(item, ending if ending in image_endings() else ".jpg"), item, "image")


def _name_of_url(url, ending):
    """Host and path, without a password; addresses that differ in their query have different names."""
    parts = urlsplit(url)
    try:
        host = [parts.hostname or "", str(parts.port or "")]
    except ValueError as error:
        raise Fault(url, "images", f"not a valid address ({error})", "check it").error() from None
    folders = [re.sub(r"[^\w.%~+=@-]", "_", part) for part in parts.path.split("/") if part not in ("", ".", "..")]
    *folders, last = folders or ["index"]
    if ending and last.lower().endswith(ending):
        last, ending = last[: -len(ending)], last[-len(ending) :]
    if parts.query:
        last += "-" + hashlib.sha256(parts.query.encode()).hexdigest()[:8]
    return "/".join(("_".join(filter(None, host)), *folders, last + ending))


def _of_file(name, path):
    return Source(name, path, "video" if path.suffix.lower() in _VIDEO_ENDINGS else "image")


def _read_stdin(spool, stdin):
    """The source that standard input is, or None, and the inputs that it lists."""
    if stdin.isatty():
        raise _stdin_error("it is a terminal", "pipe an image, a video or file names into the command")
    start = stdin.read(_START)
    if not start:
        raise _stdin_error("it is empty", "pipe an image, a video or file names into the command")
    if _is_text(start):
        text = start + stdin.read()
        names = text.split(b"\0") if b"\0" in text else text.splitlines()
        return None, [os.fsdecode(name) for name in names if name.strip()]
    path = spool / "stdin"
    with open(path, "wb") as file:
        file.write(start)
        while block := stdin.read(2**20):
            file.write(block)
    return _of_spooled(path), []


def _is_text(start):
    """Whether bytes are names: without the control characters that begin every image and video."""
    return not re.search(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", start) and not _is_image(start)


def _is_image(start):
    try:
        Image.open(io.BytesIO(start)).close()
    except Exception:  # decoders raise any exception on other data
        return False
    return True


def _of_spooled(path):
    """The source of a file without an ending, under the name that its format usually has."""
    try:
        with Image.open(path) as image:
            endings = [ending for ending, name in Image.registered_extensions().items() if name == image.format]
        ending = {"JPEG": ".jpg", "TIFF": ".tif"}.get(str(image.format), min(endings, key=len))
    except Exception:  # not an image: a video, or neither, which its reader reports
        ending = ".mp4"
    return _of_file("stdin" + ending, path.rename(path.with_name("stdin" + ending)))


def _stdin_error(problem, remedy):
    return Fault("--input -: standard input", "images", problem, remedy).error()
