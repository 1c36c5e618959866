"""Reading the image of a dataset dict upright, or saying why it can't be read."""

import re

from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from .faults import Fault

__all__ = ["kind_fault", "read_image", "size_fault"]

# Kinds of images that Pillow starts Ghostscript for
_FOREIGN = ("EPS",)
# Kinds that hold other files inside, whose sizes need not be those of the header
_CONTAINERS = ("BLP", "ICNS", "ICO", "IPTC")
# Pillow's name for how 16 bits per channel are stored; those of "BGR;16" are of all three
_DEEP = re.compile(r";16[BLN]")


def read_image(record, image_format):
    """Read the image of a dataset dict, with its EXIF orientation applied.

    The header is read first: an image of another size than the annotated one is not decoded.

    Args:
        record (dict): in detectron2's format, with ``file_name``, and where they are known ``height`` and ``width``.
        image_format (str): see ``detection_utils.read_image``.

    Returns:
        ndarray: (H, W, C) uint8.

    Raises:
        DatasetError: the image is missing, damaged, not of the annotated size, of a kind that can't be read without
            loss (more than 8 bits per channel), that another program would have to read (PostScript) or that holds
            images of unknown sizes (icons). Its ``fault`` says which.
    """
    file_name = record["file_name"]
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as header:
            problem = kind_fault(header)
            # an EXIF orientation may still exchange the two
            if problem is None and size_fault(header.size[::-1], record):
                problem = size_fault(header.size, record)
            image = None if problem else _decode(header, file_name, image_format)
    except FileNotFoundError:
        raise _error(file_name, "the image does not exist", "check the data set's image folder") from None
    except Exception as error:  # decoders raise whatever they like on a damaged file
        problem = f"the image cannot be read ({error}); it may be damaged: copy it again"
        raise _error(file_name, problem) from error
    if problem is None:
        height, width = image.shape[:2]
        problem = size_fault((width, height), record)
    if problem is not None:
        raise _error(file_name, problem)
    return image


def kind_fault(image):
    """Tell why an image of this kind is not read.

    Args:
        image (PIL.Image.Image): an open file, of which the header is enough.

    Returns:
        str | None: the reason and the remedy; None if it is read.
    """
    if image.format in _FOREIGN:
        return f"the image is {image.format}, which Pillow leaves to another program to read; convert it to JPEG or PNG"
    if image.format in _CONTAINERS:
        return f"the image is {image.format}, whose header does not tell what it holds; convert it to JPEG or PNG"
    stored = " ".join(str(tile[3]) for tile in image.tile[:1])
    if image.mode.startswith(("I", "F")) or _DEEP.search(stored):
        return (
            f"the image has more than 8 bits per channel (Pillow's mode {image.mode}), which would be cut off; convert "
            "it to 8 bits"
        )
    return None


def size_fault(size, record):
    """Tell that an image is not of the annotated size.

    Args:
        size (tuple[int, int]): (width, height), pixels.
        record (dict): in detectron2's format; ``width`` and ``height`` may be missing.

    Returns:
        str | None: both sizes and the remedy; None if they are the same.
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
    """Pixels of an open file, upright, as ``detection_utils.read_image`` has them.

    That function turns a TIFF file a second time: Pillow turns it on loading, while its EXIF data still ask for a turn.
    """
    if header.format == "TIFF":
        return utils.convert_PIL_to_numpy(ImageOps.exif_transpose(header), image_format)
    return utils.read_image(file_name, format=image_format)


def _error(file_name, problem, remedy=""):
    return Fault(file_name, "images", problem, remedy).error()
