"""Finding truncated and broken image files before a training run meets them."""

import os
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from .schema import DatasetError

__all__ = ["check_images"]

# How a complete file ends: JPEG's end-of-image marker, PNG's last chunk
_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
_TAIL = 4096
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
    names = [record["file_name"] for record in dataset_dicts]
    with ThreadPoolExecutor(_THREADS) as pool:
        faults = [(name, fault) for name, fault in zip(names, pool.map(_fault, names)) if fault]
    if faults:
        listed = "; ".join(f"{name} ({fault})" for name, fault in faults[:3])
        raise DatasetError(
            f"{len(faults)} of {len(names)} images can't be read: {listed}{'; ...' if len(faults) > 3 else ''}: copy "
            "them again, or remove them from the annotation file"
        )


def _fault(name):
    """Why an image can't be read; None if it can."""
    try:
        ending = _ENDINGS.get(os.path.splitext(name)[1].lower())
        if ending is not None:
            with open(name, "rb") as file:
                file.seek(max(0, os.path.getsize(name) - _TAIL))
                if ending in file.read():
                    return None
        with Image.open(name) as image:
            image.load()
    except Exception as error:
        # Pillow raises OSError, SyntaxError, ValueError and more for files that are not quite images
        return " ".join(f"{type(error).__name__}: {error}".split()).replace(name, "the file")
    return None
