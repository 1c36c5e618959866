"""Images in any form that users have them in, as BGR arrays: arrays, PIL images, files, URLs, encoded bytes."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import NamedTuple, TypeAlias, Union

import numpy as np
from PIL import Image, ImageOps

from dynpose.version import __version__

from .faults import Fault
from .image_reading import kind_fault, read_image, to_pixels

__all__ = ["EncodedImage", "ImageLike", "fetch_image", "is_url", "to_bgr"]

_SECONDS_TO_ANSWER = 30
_MAX_BYTES = 2**28
# Channels of an array that are colours, by the number of channels
_COLORS = {1: [0, 0, 0], 3: [0, 1, 2], 4: [0, 1, 2]}


class EncodedImage(NamedTuple):
    """The contents of an image file, such as a downloaded one."""

    name: str
    """For error messages."""
    content: bytes


ImageLike: TypeAlias = Union[np.ndarray, Image.Image, str, "os.PathLike[str]", EncodedImage]


def is_url(image: object) -> bool:
    """Whether an input is the http(s) address of an image."""
    return isinstance(image, str) and image.lower().startswith(("http://", "https://"))


def to_bgr(image: ImageLike) -> np.ndarray:
    """Read or convert an image.

    The alpha channel is dropped. The EXIF orientation of files and PIL images is applied.

    Args:
        image: an array (H, W) or (H, W, 1) grey, (H, W, 3) BGR or (H, W, 4) BGRA, uint8; a PIL image of any mode with
            up to 8 bits per channel; a file name; an http(s) URL; or an EncodedImage.

    Returns:
        ndarray: (H, W, 3) uint8, BGR.

    Raises:
        DatasetError: the file, the URL or the PIL image can't be read, or has more than 8 bits per channel.
        ValueError: the array is not such an image.
        TypeError: the input is of another type.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _from_pil(image, getattr(image, "filename", "") or "PIL image")
    if is_url(image):
        image = fetch_image(str(image))
    if isinstance(image, EncodedImage):
        return _from_bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return read_image({"file_name": os.fspath(image)}, "BGR")
    raise TypeError(
        f"an image must be a numpy array, a PIL image, a file name or a URL, got {type(image).__name__}"
        + ("; give tensor.numpy() of (H, W, 3) uint8" if hasattr(image, "numpy") else "")
        + ("; give the contents of a file as EncodedImage(name, contents)" if isinstance(image, bytes) else "")
    )


def fetch_image(url: str) -> EncodedImage:
    """Download an image; nothing is cached.

    detectron2's PathManager is not used: it keeps what it downloads, and would give the first image of a network camera
    forever.

    Args:
        url (str): http or https.

    Raises:
        DatasetError: the server does not answer within 30 seconds or refuses, or the file is larger than 256 MiB.
    """
    # a quarter of the time of importing dynpose.runtime
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": f"dynpose/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER) as answer:
            content = answer.read(_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise _error(url, f"the server answers {error.code} {error.reason}", "check the address") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _error(url, f"it can't be downloaded ({reason})", "check the address and the network") from None
    if len(content) > _MAX_BYTES:
        raise _error(url, f"it is larger than {_MAX_BYTES // 2**20} MiB", "give the address of an image")
    return EncodedImage(url, content)


def _from_array(array):
    shape = f"{array.shape} {array.dtype}"
    if array.dtype != np.uint8:
        raise ValueError(f"an image must have 8 bits per channel (uint8), got {shape}; {_conversion(array.dtype)}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLORS or array.size == 0:
        raise ValueError(
            f"an image must be an array (H, W) or (H, W, 1) in grey, (H, W, 3) in BGR or (H, W, 4) in BGRA order, got "
            f"{shape}; transpose an image whose channels come first, and give several images as a list"
        )
    # a view where no channel is dropped or repeated
    return array if array.shape[2] == 3 else np.ascontiguousarray(array[:, :, _COLORS[array.shape[2]]])


def _conversion(dtype):
    """The remedy for an array of another data type."""
    if np.issubdtype(dtype, np.bool_):
        return "convert it with image.astype(numpy.uint8) * 255"
    if np.issubdtype(dtype, np.floating):
        return "for values from 0 to 1, convert it with (image * 255).round().astype(numpy.uint8)"
    if np.issubdtype(dtype, np.uint16):
        return "for values up to 65535, convert it with (image // 257).astype(numpy.uint8)"
    return "for values from 0 to 255, convert it with image.astype(numpy.uint8)"


def _from_bytes(image):
    try:
        with Image.open(io.BytesIO(image.content)) as opened:
            problem = kind_fault(opened)
            if problem is None:
                return _pixels(opened)
    except Exception as error:  # decoders raise any exception on corrupt data
        start = " ".join(repr(image.content[:40])[2:-1].split())
        problem = f"it is not an image that can be read ({type(error).__name__}); it starts with {start!r}"
    raise _error(image.name, problem)


def _from_pil(image, name):
    problem = kind_fault(image)
    if problem is None:
        try:
            return _pixels(image)
        except Exception as error:
            problem = f"the image, of Pillow's mode {image.mode}, can't be read as RGB ({error})"
    raise _error(name, problem)


def _pixels(image):
    # Pillow raises any exception on invalid EXIF data, whose orientation detectron2 ignores too
    with suppress(Exception):
        image = ImageOps.exif_transpose(image)
    return to_pixels(image, "BGR")


def _error(name, problem, remedy=""):
    return Fault(name, "images", problem, remedy).error()
