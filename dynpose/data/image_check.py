"""Finding truncated and broken image files before a training run meets them, and reading those that are not."""

import os
from concurrent.futures import ThreadPoolExecutor

from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from .schema import DatasetError

__all__ = ["check_images", "find_broken_images", "image_fault", "read_image"]

# How a complete file ends: JPEG's end-of-image marker, PNG's last chunk
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
_TAIL = 4096
# The EXIF tag, and its values that exchange width and height
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
# Kinds of images that Pillow starts Ghostscript for
_FOREIGN = ("EPS",)
_THREADS = 16


def check_images(dataset_dicts):
    """Check that every image of a data set is there and complete.

    Of a JPEG or PNG file the last bytes are read; only a file that does not end as it should, or is of another kind, is
    decoded. That takes seconds for tens of thousands of images on a local disk.

    Args:
        dataset_dicts (list[dict]): in detectron2's format, with ``file_name``.

    Raises:
        DatasetError: names the first broken files, says how many there are, and why the first can't be read.
    """
    faults = find_broken_images(dataset_dicts)
    if faults:
        listed = "; ".join(f"{name} ({fault})" for name, fault in faults[:3])
        raise DatasetError(
            f"{len(faults)} of {len(dataset_dicts)} images can't be read: {listed}{'; ...' if len(faults) > 3 else ''}:"
            " copy them again, or remove them from the annotation file"
        )


def find_broken_images(dataset_dicts, check=None):
    """Check images in several threads.

    Args:
        dataset_dicts (list[dict]): in detectron2's format, with ``file_name``.
        check (Callable[[dict], str | None]): what is wrong with the image of a dict; None = what :func:`check_images`
            looks at.

    Returns:
        list[tuple[str, str]]: file names of the faulty ones and what is wrong, in order.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(check or (lambda record: _fault(record["file_name"])), dataset_dicts)
        return [(record["file_name"], fault) for record, fault in zip(dataset_dicts, found) if fault]


def image_fault(record, decode=False):
    """Find out whether training would refuse an image.

    Args:
        record (dict): in detectron2's format, with ``file_name``, and where they are known ``height`` and ``width``.
        decode (bool): decode all of it; False = header, orientation and end of the file.

    Returns:
        str | None: why :func:`read_image` would refuse it; None if it would not.
    """
    file_name = record["file_name"]
    fault = _fault(file_name)
    if fault is not None:
        return fault
    try:
        if decode:
            read_image(record, "BGR")
            return None
        with PathManager.open(file_name, "rb") as file, Image.open(file) as header:
            fault = _header_fault(header.format, header.mode, header.size, record)
            is_turned = header.getexif().get(_ORIENTATION) in _TURNED
            return fault or _size_fault(header.size[::-1] if is_turned else header.size, record)
    except DatasetError as error:
        return str(error).removeprefix(f"{file_name}: ")
    except Exception as error:  # of EXIF data that are none, which detectron2 passes over
        return " ".join(f"{type(error).__name__}: {error}".split())


def read_image(record, image_format):
    """Read the image of a dataset dict, with its EXIF orientation applied.

    Its header is looked at before it is decoded: an image of another size than the annotated one is not decoded at all.

    Args:
        record (dict): in detectron2's format, with ``file_name``, and where they are known ``height`` and ``width``.
        image_format (str): see ``detection_utils.read_image``.

    Returns:
        ndarray: (H, W, C) uint8.

    Raises:
        DatasetError: the image is missing, damaged, not of the annotated size, of a kind that can't be read without
            loss (more than 8 bits per channel) or that another program would have to read (PostScript).
    """
    file_name = record["file_name"]
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as header:
            kind, mode, size = header.format, header.mode, header.size
        fault = _header_fault(kind, mode, size, record)
        image = None if fault else utils.read_image(file_name, format=image_format)
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: the image does not exist; check the data set's image folder") from None
    except Exception as error:  # decoders raise whatever they like on a damaged file
        raise DatasetError(
            f"{file_name}: the image cannot be read ({error}); it may be damaged: copy it again"
        ) from error
    if fault is None:
        height, width = image.shape[:2]
        fault = _size_fault((width, height), record)
    if fault is not None:
        raise DatasetError(f"{file_name}: {fault}")
    return image


def _header_fault(kind, mode, size, record):
    """What is wrong with an image by its header; an EXIF orientation may still exchange width and height."""
    if kind in _FOREIGN:
        return f"the image is {kind}, which Pillow leaves to another program to read; convert it to JPEG or PNG"
    if mode.startswith(("I", "F")):
        return (
            f"the image has more than 8 bits per channel (Pillow's mode {mode}), which would be cut off; convert it to "
            "8 bits"
        )
    return None if _size_fault(size[::-1], record) is None else _size_fault(size, record)


def _size_fault(size, record):
    width, height = size
    annotated = record.get("width", width), record.get("height", height)
    if annotated == (width, height):
        return None
    return (
        f"the image is {width} x {height} pixels, its annotation says {annotated[0]} x {annotated[1]}; correct the "
        "annotation (if the two are swapped: the image's EXIF orientation was not applied there)"
    )


def _fault(name):
    """Why an image can't be read; None if it can."""
    try:
        if not os.path.isfile(name):  # to read a pipe may take forever
            return "no such file"
        ending = _ENDINGS.get(os.path.splitext(name)[1].lower())
        if ending is not None:
            with open(name, "rb") as file:
                file.seek(max(0, os.path.getsize(name) - _TAIL))
                if ending in file.read():
                    return None
        with Image.open(name) as image:
            if image.format in _FOREIGN:
                return f"{image.format}, which Pillow leaves to another program to read"
            image.load()
    except Exception as error:
        # Pillow raises OSError, SyntaxError, ValueError and more for files that are not quite images
        return " ".join(f"{type(error).__name__}: {error}".split()).replace(name, "the file")
    return None
