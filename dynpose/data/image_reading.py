"""Reading the image of a dataset dict with its EXIF orientation applied, and errors that say why it can't be read.

It gives the pixels of detectron2's ``read_image``, which is not called, so that images are read without detectron2.
"""

import re
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from .faults import Fault

__all__ = ["kind_fault", "read_image", "size_fault", "to_pixels"]

# Formats for which Pillow starts Ghostscript
_FOREIGN = ("EPS",)
# Formats that hold other files, whose sizes may differ from the header's
_CONTAINERS = ("BLP", "ICNS", "ICO", "IPTC")
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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
        with _open(file_name) as file, Image.open(file) as header:
            problem = kind_fault(header)
            # an EXIF orientation may still swap width and height
            if problem is None and size_fault(header.size[::-1], record):
                problem = size_fault(header.size, record)
            image = None if problem else to_pixels(_upright(header), image_format)
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


def to_pixels(image: Image.Image, image_format: str) -> np.ndarray:
    """The pixels of a Pillow image, as detectron2's ``convert_PIL_to_numpy`` gives them.

    Args:
        image (Image): of any mode with up to 8 bits per channel.
        image_format (str): "RGB", "BGR", or another one of that function.

    Returns:
        ndarray: (H, W, 3) uint8 for "RGB" and "BGR".
    """
    if image_format not in ("RGB", "BGR"):
        from detectron2.data.detection_utils import convert_PIL_to_numpy

        return convert_PIL_to_numpy(image, image_format)
    pixels = np.asarray(image.convert("RGB"))
    return pixels[:, :, ::-1] if image_format == "BGR" else pixels


def _open(file_name: str) -> IO[bytes]:
    """Open a file, or one of detectron2's addresses such as s3://bucket/image.jpg."""
    if "://" not in file_name:
        return open(file_name, "rb")
    from detectron2.utils.file_io import PathManager

    return PathManager.open(file_name, "rb")


def _upright(image):
    """The image with its EXIF orientation applied; invalid EXIF data are ignored, as in detectron2.

    Pillow applies the orientation of a TIFF file on loading, but keeps it in the EXIF data until it is transposed.
    """
    if image.format == "TIFF":
        return ImageOps.exif_transpose(image)
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # Pillow raises any exception on invalid EXIF data
        orientation = None
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _error(file_name, problem, remedy=""):
    return Fault(file_name, "images", problem, remedy).error()
