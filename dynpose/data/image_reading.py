"""Reading the image of a dataset dict with its EXIF orientation applied, and errors that say why it can't be read."""

import re
from typing import Any

import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from .faults import Fault

__all__ = ["kind_fault", "read_image", "size_fault"]

# Formats for which Pillow starts Ghostscript
_FOREIGN = ("EPS",)
# Formats that hold other files, whose sizes may differ from the header's
_CONTAINERS = ("BLP", "ICNS", "ICO", "IPTC")
# Pillow's names for storage with 16 bits per channel; the 16 bits of "BGR;16" are those of all three channels
_DEEP = re.compile(r";16[BLN]")


def read_image(record: dict[str, Any], image_format: str) -> np.ndarray:
    """Read the image of a dataset dict, with its EXIF orientation applied.

    The header is read first: an image whose size differs from the annotated one is not decoded.

    Args:
        record (dict): in detectron2's format, with ``file_name``, and ``height`` and ``width`` if known.
        image_format (str): see ``detection_utils.read_image``.

    Returns:
        ndarray: (H, W, C) uint8.

    Raises:
        DatasetError: the image is missing, corrupt, not of the annotated size, or of a format that can't be read
            without loss (more than 8 bits per channel), needs another program (PostScript) or holds images of unknown
            sizes (icons). Its ``fault`` says which.
    """
    file_name = record["file_name"]
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as header:
            problem = kind_fault(header)
            # an EXIF orientation may still swap width and height
            if problem is None and size_fault(header.size[::-1], record):
                problem = size_fault(header.size, record)
            image = None if problem else _decode(header, file_name, image_format)
    except FileNotFoundError:
        raise _error(file_name, "the image does not exist", "check the data set's image folder") from None
    except Exception as error:  # decoders raise any exception on a corrupt file
        problem = f"the image cannot be read ({error}); it may be damaged: copy it again"
        raise _error(file_name, problem) from error
    if image is not None:
        height, width = image.shape[:2]
        problem = size_fault((width, height), record)
    if image is None or problem is not None:
        raise _error(file_name, problem)
    return image


def kind_fault(image: Image.Image) -> str | None:
    """Say why an image of this format is refused.

    Args:
        image (Image): an open file, of which only the header is used, or an image in memory.

    Returns:
        str | None: the reason and the remedy; None if the format is supported.
    """
    if image.format in _FOREIGN:
        return f"the image is {image.format}, which Pillow needs another program to read; convert it to JPEG or PNG"
    if image.format in _CONTAINERS:
        return f"the image is {image.format}, whose header does not describe its contents; convert it to JPEG or PNG"
    stored = " ".join(str(tile[3]) for tile in getattr(image, "tile", ())[:1])
    if image.mode.startswith(("I", "F")) or _DEEP.search(stored):
        return (
            f"the image has more than 8 bits per channel (Pillow's mode {image.mode}), which would be cut off; convert "
            "it to 8 bits"
        )
    return None


def size_fault(size: tuple[int, int], record: dict[str, Any]) -> str | None:
    """Say that an image is not of the annotated size.

    Args:
        size (tuple[int, int]): (width, height), pixels.
        record (dict): in detectron2's format; ``width`` and ``height`` may be missing.

    Returns:
        str | None: both sizes and the remedy; None if the sizes are equal.
    """
    width, height = size
    annotated = record.get("width", width), record.get("height", height)
    if annotated == (width, height):
        return None
    return (
        f"the image is {width} x {height} pixels, its annotation says {annotated[0]} x {annotated[1]}; correct the "
        "annotation (if the two are swapped: the image's EXIF orientation was not applied there)"
    )


def _decode(header, file_name, image_format):
    """Pixels of an open file with the EXIF orientation applied, in the format of ``detection_utils.read_image``.

    That function rotates a TIFF file twice: Pillow applies the orientation on loading, but keeps it in the EXIF data.
    """
    if header.format == "TIFF":
        return utils.convert_PIL_to_numpy(ImageOps.exif_transpose(header), image_format)
    return utils.read_image(file_name, format=image_format)


def _error(file_name, problem, remedy=""):
    return Fault(file_name, "images", problem, remedy).error()
