"""Finding image files that are truncated, corrupt or not of the annotated size before a run."""

import functools
import io
import logging
import math
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import Any, NamedTuple

import numpy as np
import PIL
from detectron2.utils.file_io import PathManager
from PIL import Image

from .cache import load_arrays, store_arrays
from .image_reading import kind_fault, read_image, size_fault
from .schema import DatasetError

__all__ = [
    "ImageFault",
    "check_images",
    "displayed_sizes",
    "find_broken_images",
    "find_image_faults",
    "image_fault",
    "size_cause",
]

logger = logging.getLogger(__name__)

# End marker of a complete file by format, within the last _TAIL bytes
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}
_TAIL = 4096
# The EXIF tag, and its values that swap width and height
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
# The TIFF tags of the stored width and height
_TIFF_SIZE = (0x0100, 0x0101)
_THREADS = 16
# Pixels that all threads of a check together decode at once, enough for 4096 x 3072. Pillow takes up to four bytes per
# pixel, WebP's decoder twelve more.
_PIXELS_AT_ONCE = 12_600_000
# Images of more pixels are decoded by one thread: the C library keeps freed memory for each thread
_LARGE = 1_000_000
# Data sets with fewer images are not cached: reading them takes no longer
_CACHED_FROM = 100


class ImageFault(NamedTuple):
    """A faulty image of a data set.

    Attributes:
        record (dict): record of the image, in detectron2's format.
        problem (str): the message of :func:`image_fault`.
        size (tuple[int, int] | None): displayed width and height, with the EXIF orientation applied, if they differ
            from the annotated ones; None if the image can't be read.
        is_turned (bool): the EXIF orientation swaps width and height.
    """

    record: dict[str, Any]
    problem: str
    size: tuple[int, int] | None
    is_turned: bool


def check_images(dataset_dicts: list[dict[str, Any]]) -> None:
    """Check that every image of a data set exists, is complete and has the annotated size.

    The check reads the header, the EXIF orientation and, of a JPEG or PNG file, the end. A file without the expected
    end, or of another format, is decoded, unless its size is already wrong or it is too large. Valid files are cached
    (:mod:`dynpose.data.cache`): the next check compares only their size and modification time.

    Args:
        dataset_dicts (list[dict]): in detectron2's format, with ``file_name``, and ``height`` and ``width`` if known.

    Raises:
        DatasetError: names the first corrupt files and the first files of another size, their numbers, why they can't
            be read, and, if known, why the sizes differ.
    """
    start = time.perf_counter()
    faults = find_image_faults(dataset_dicts)
    logger.info("Checked the files of %d images in %.1f s", len(dataset_dicts), time.perf_counter() - start)
    broken = [fault for fault in faults if fault.size is None]
    differing = [fault for fault in faults if fault.size is not None]
    messages = []
    if broken:
        listed = _first_three(broken, lambda fault: fault.problem)
        messages.append(
            f"{len(broken)} of {len(dataset_dicts)} images can't be read: {listed}: copy them again, or remove them "
            "from the annotation file"
        )
    if len(differing) == 1:
        messages.append(f"{differing[0].record['file_name']}: {differing[0].problem}")
    elif differing:
        listed = _first_three(differing, _both_sizes)
        messages.append(
            f"{len(differing)} of {len(dataset_dicts)} images are not of the annotated size: {listed}: "
            f"{size_cause(differing, dataset_dicts) or 'correct the annotation, or provide the matching images'}"
        )
    if messages:
        raise DatasetError(". ".join(messages))


def find_broken_images(
    dataset_dicts: list[dict[str, Any]], check: Callable[[dict[str, Any]], str | None] | None = None
) -> list[tuple[str, str]]:
    """Check images in several threads.

    Args:
        dataset_dicts (list[dict]): in detectron2's format, with ``file_name``.
        check (Callable[[dict], str | None]): returns the fault of a dict's image; None = the cached check of
            :func:`check_images`.

    Returns:
        list[tuple[str, str]]: file names of the faulty images and their faults, in order.
    """
    if check is None:
        return [(fault.record["file_name"], fault.problem) for fault in find_image_faults(dataset_dicts)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(check, dataset_dicts)
        return [(record["file_name"], fault) for record, fault in zip(dataset_dicts, found) if fault]


def find_image_faults(dataset_dicts: list[dict[str, Any]]) -> list[ImageFault]:
    """Find the images of a data set that training would refuse; see :func:`check_images`.

    Args:
        dataset_dicts (list[dict]): in detectron2's format, with ``file_name``, and ``height`` and ``width`` if known.

    Returns:
        list[ImageFault]: in order.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        if len(dataset_dicts) < _CACHED_FROM:
            seen = list(pool.map(_inspect, dataset_dicts))
        else:
            seen = _inspect_changed(dataset_dicts, pool)
    faults = []
    for record, (problem, size, is_turned) in zip(dataset_dicts, seen):
        differs = size_fault(size, record) if size else None
        fault = problem or differs
        if fault:
            faults.append(ImageFault(record, fault, size if differs else None, is_turned))
    return faults


def displayed_sizes(file_names: Sequence[str]) -> list[tuple[tuple[int, int] | None, str | None]]:
    """Read the sizes of images as displayed, with the EXIF orientation applied.

    Args:
        file_names: paths of N image files.

    Returns:
        list[tuple]: for each, width and height in pixels, and why training would refuse the file; one of them is None.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        seen = list(pool.map(_inspect, ({"file_name": name} for name in file_names)))
    return [(None, problem) if problem else (size, None) for problem, size, _ in seen]


def size_cause(differing: list[ImageFault], dataset_dicts: list[dict[str, Any]]) -> str | None:
    """Say why images are not of the annotated size.

    Args:
        differing (list[ImageFault]): the faults with a ``size``.
        dataset_dicts (list[dict]): all images of the data set.

    Returns:
        str | None: the cause and the remedy; None if the cause is unknown.
    """
    annotated = [(fault.record.get("width"), fault.record.get("height")) for fault in differing]
    if all((height, width) == fault.size for (width, height), fault in zip(annotated, differing)):
        if all(fault.is_turned for fault in differing):
            return (
                "width and height are swapped, since the images' EXIF orientation was not applied in annotating: "
                "annotate the images as they are shown, or take the orientation out of the files"
            )
        return "width and height are swapped: exchange them in the annotation"
    if len(differing) > 1 and len({(record.get("width"), record.get("height")) for record in dataset_dicts}) == 1:
        width, height = annotated[0]
        is_first = all(fault.record is not dataset_dicts[0] for fault in differing)
        return (
            f"all images are annotated as {width} x {height}{', the size of the first' if is_first else ''}: the "
            "annotation tool wrote one size for all; write each image's own size into the annotation"
        )
    return None


def image_fault(record: dict[str, Any], decode: bool = False) -> str | None:
    """Check whether training would refuse an image.

    Args:
        record (dict): in detectron2's format, with ``file_name``, and ``height`` and ``width`` if known.
        decode (bool): decode the whole image; False = check header, orientation and end of the file.

    Returns:
        str | None: why :func:`~dynpose.data.image_reading.read_image` would refuse the image; None if it would not.
    """
    seen = _inspect(record, is_decoded_later=decode)
    if seen.problem or not decode:
        return seen.problem
    return _within_memory(math.prod(seen.size), _reading_fault, record)


class _Seen(NamedTuple):
    problem: str | None
    size: tuple[int, int] | None = None
    """(width, height) as displayed, with the EXIF orientation applied; None if the image can't be read"""
    is_turned: bool = False
    """The EXIF orientation swaps width and height"""


def _inspect_changed(dataset_dicts, pool):
    """Check the files that are new or have changed since they were found valid, and cache the valid ones.

    Returns:
        list[_Seen]: one per image.
    """
    names = [os.path.abspath(record["file_name"]) for record in dataset_dicts]
    # the supported files depend on Pillow's version
    key = "\n".join([f"Pillow {PIL.__version__}", *names])
    step = -(-len(names) // (4 * _THREADS))
    parts = [names[start : start + step] for start in range(0, len(names), step)]
    files = np.concatenate(list(pool.map(_sizes_and_times, parts)))
    known = _cached(key, len(names))
    is_known = (known[:, :2] == files).all(axis=1) & (known[:, 2] > 0)
    unknown = np.flatnonzero(~is_known)
    found = dict(zip(unknown.tolist(), pool.map(_inspect, [dataset_dicts[index] for index in unknown])))
    seen = []
    for index, (width, height, is_turned) in enumerate(known[:, 2:].tolist()):
        seen.append(found[index] if index in found else _Seen(None, (width, height), bool(is_turned)))
    sound = [(index, found[index]) for index in found if found[index].problem is None and files[index, 0] >= 0]
    if sound:
        for index, (_, size, is_turned) in sound:
            known[index] = *files[index], *size, is_turned
        store_arrays("images", key, {"files": known})
    return seen


def _cached(key, count):
    """(N, 5) int64 for N files: bytes, time in ns, width, height, whether EXIF swaps the two; 0 if not known."""
    files = (load_arrays("images", key) or {}).get("files")
    is_usable = files is not None and files.shape == (count, 5) and files.dtype == np.int64
    return files if is_usable else np.zeros((count, 5), np.int64)


def _sizes_and_times(names):
    """(N, 2) int64: bytes and modification time in ns; -1 if the path is not a file."""
    found = np.full((len(names), 2), -1, np.int64)
    for index, name in enumerate(names):
        try:
            status = os.stat(name)
        except (OSError, ValueError):  # ValueError: a null byte in the name
            continue
        if stat.S_ISREG(status.st_mode):
            found[index] = status.st_size, status.st_mtime_ns
    return found


def _inspect(record, is_decoded_later=False):
    """Read the header of an image, and decode the image if only that shows whether it is complete."""
    name = record["file_name"]
    try:
        if not os.path.isfile(name):  # reading a pipe may block forever
            return _Seen("no such file")
        with PathManager.open(name, "rb") as file, Image.open(file) as image:
            problem = kind_fault(image)
            if problem:
                return _Seen(problem)
            is_turned, is_complete = _orientation_and_end(image, file)
            stored = _stored_size(image)
            size = stored[::-1] if is_turned else stored
            problem = size_fault(size, record)
            if problem is None and not is_complete and not is_decoded_later:
                problem = _decoding_fault(name, image, has_no_end=is_complete is False)
            return _Seen(problem, size, is_turned)
    except Exception as error:
        # Pillow raises OSError, SyntaxError, ValueError and others for invalid image files
        return _Seen(_in_a_line(error, name))


def _stored_size(image):
    """(width, height) as stored. Pillow gives the displayed size of a TIFF, unless only XMP has the orientation."""
    return tuple(image.tag_v2[tag] for tag in _TIFF_SIZE) if image.format == "TIFF" else image.size


def _orientation_and_end(image, file):
    """Whether EXIF swaps width and height, and whether the file has the end of its format (None = not known)."""
    position, small, is_complete = file.tell(), None, None
    if image.format == "PNG":
        small, is_complete = _png_of_one_pixel(file)
    elif image.format in _ENDINGS:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        is_complete = _ENDINGS[image.format] in file.read()
    file.seek(position)
    try:
        # getexif decodes a PNG file without EXIF data before its pixels, to find EXIF data after them
        tagged = Image.open(io.BytesIO(small)) if small and "exif" not in image.info else image
        return tagged.getexif().get(_ORIENTATION) in _TURNED, is_complete
    except Exception:  # from invalid EXIF data, which detectron2 ignores
        return False, is_complete


# The chunks of a PNG file from which Pillow reads EXIF data and an orientation, with the beginning of their content
_PNG_METADATA = {
    b"eXIf": b"",
    **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")),
}
_MAX_METADATA = 2**20


def _png_of_one_pixel(file):
    """A one-pixel PNG with the metadata of a file, whose pixels are skipped; and whether the file has its end."""
    metadata, has_end = [], False
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if has_end := kind == b"IEND":
            break
        if kind in _PNG_METADATA and length <= _MAX_METADATA:
            content = file.read(length + 4)
            if content.startswith(_PNG_METADATA[kind]):
                metadata.append(_png_chunk(kind, content[:-4]))
        else:
            file.seek(length + 4, os.SEEK_CUR)
    header, pixels = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), zlib.compress(b"\0\0")
    chunks = [_png_chunk(b"IHDR", header), *metadata, _png_chunk(b"IDAT", pixels), _png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks), has_end


def _png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _decoding_fault(name, image, has_no_end):
    """Decode an image with a valid header; one that is too large to decode is faulty only if it has no end."""
    size = image.size
    image.draft(image.mode, (1, 1))  # decodes a JPEG file at an eighth of its size
    # all coefficients of a progressive JPEG are in memory at once
    pixels = math.prod(size if image.info.get("progressive") else image.size)
    if pixels > _PIXELS_AT_ONCE:
        return "it does not end as a file of its format does: it is truncated" if has_no_end else None
    return _within_memory(pixels, _loading_fault, name)


def _within_memory(pixels, decode, *args):
    """Call a function that decodes ``pixels`` pixels and releases them when it returns."""
    if pixels > _LARGE:
        return _thread_for_large_images(os.getpid()).submit(_decode_within_budget, pixels, decode, *args).result()
    return _decode_within_budget(pixels, decode, *args)


@functools.cache
def _thread_for_large_images(_process):
    # one for each process: a fork copies no threads
    return ThreadPoolExecutor(1)


def _decode_within_budget(pixels, decode, *args):
    with _PIXELS.taken(pixels):
        return decode(*args)


def _reading_fault(record):
    try:
        read_image(record, "BGR")
    except DatasetError as error:
        return error.fault.reason
    return None


def _loading_fault(name):
    try:
        with Image.open(name) as image:
            image.draft(image.mode, (1, 1))
            image.load()
    except Exception as error:
        return _in_a_line(error, name)
    return None


def _in_a_line(error, name):
    return " ".join(f"{type(error).__name__}: {error}".split()).replace(name, "the file")


class _Budget:
    """A limited resource that threads share; a thread waits until enough of it is free.

    Args:
        total (int): the available amount; a larger request is reduced to it.
    """

    def __init__(self, total):
        self.total = self.free = total
        self.changed = Condition()

    @contextmanager
    def taken(self, amount):
        """Hold an amount while the block runs."""
        amount = min(amount, self.total)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            with self.changed:
                self.free += amount
                self.changed.notify_all()


_PIXELS = _Budget(_PIXELS_AT_ONCE)


def _first_three(faults, describe):
    listed = "; ".join(f"{fault.record['file_name']} ({describe(fault)})" for fault in faults[:3])
    return f"{listed}; ..." if len(faults) > 3 else listed


def _both_sizes(fault):
    annotated = fault.record.get("width", fault.size[0]), fault.record.get("height", fault.size[1])
    return f"{fault.size[0]} x {fault.size[1]} pixels, annotated as {annotated[0]} x {annotated[1]}"
