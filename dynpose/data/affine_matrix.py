"""Matrices of affine warps of images, and warping by them: NumPy and OpenCV alone, for inference without PyTorch too.

A matrix (2, 3), [A | b], maps the point p = (x, y) to A p + b. It uses one of two coordinate conventions, and every
function here states which:

- pixel indices: the centre of the first pixel is 0. Used by OpenCV, COCO's keypoints and the released CID.
- continuous pixels: the centre of the first pixel is 0.5. Used by detectron2 and the rest of dynpose.

Sizes are (width, height), in the order of points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

__all__ = [
    "SCALE_UNIT",
    "affine_matrix",
    "affine_matrix_to",
    "canvas_warp",
    "index_to_continuous",
    "matrix_of",
    "warped_image",
]

# CID and its predecessors measure people and images in units of this many pixels.
SCALE_UNIT = 200


def affine_matrix(
    center: Sequence[float], scale: float, rotation: float, translation: Sequence[float], output_size: tuple[int, int]
) -> np.ndarray:
    """The matrix by which CID rotates, scales and shifts an image.

    It maps the point ``center`` + ``translation`` of the image to the centre (width / 2, height / 2) of the output. In
    the release these are pixel indices; the matrix then maps pixel indices to pixel indices.

    Args:
        center (tuple[float, float]): x and y in the image.
        scale (float): the output's shorter side shows 200 times this many pixels of the image.
        rotation (float): of the image about ``center`` + ``translation``, counter-clockwise as displayed, degrees.
        translation (tuple[float, float]): in x and y, pixels of the image. The image shifts in the opposite direction.
        output_size (tuple[int, int]): (width, height) of the output.

    Returns:
        ndarray: (2, 3) float64.
    """
    zoom = min(output_size) / (SCALE_UNIT * scale)
    cos, sin = zoom * np.cos(np.deg2rad(rotation)), zoom * np.sin(np.deg2rad(rotation))
    linear = np.array([[cos, sin], [-sin, cos]])
    offset = np.asarray(output_size) / 2 - linear @ (np.asarray(center) + np.asarray(translation))
    return np.column_stack([linear, offset])


def affine_matrix_to(region: np.ndarray, rotation: float, output_size: tuple[int, int]) -> np.ndarray:
    """The matrix that shows a region in the centre of the output, as large as fits without rotation.

    Args:
        region (ndarray): (4,) XYXY, continuous pixels of the image.
        rotation (float): of the image about the region's centre, counter-clockwise as displayed, degrees.
        output_size (tuple[int, int]): (width, height) of the output.

    Returns:
        ndarray: (2, 3) float64, from continuous pixels to continuous pixels.
    """
    shown = ((region[2:] - region[:2]) * min(output_size) / np.asarray(output_size)).max()
    center = (region[:2] + region[2:]) / 2
    return affine_matrix(center.tolist(), shown / SCALE_UNIT, rotation, (0, 0), output_size)


def canvas_warp(
    height: int, width: int, size: int, multiple: int, max_size: int | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """The resize onto a canvas whose sides are multiples of a number (:class:`~dynpose.data.AffineResize`).

    Args:
        height, width (int): of the image.
        size, multiple, max_size: see the class.

    Returns:
        tuple: the matrix (2, 3), from continuous pixels to continuous pixels, and the canvas's (width, height).
    """

    def rounded_up(length):
        return max(1, -(-length // multiple)) * multiple

    short, long = min(width, height), max(width, height)
    short_side = rounded_up(size)
    long_side = rounded_up(short_side * long // short)
    shown: float = short
    if max_size is not None and long_side > max_size:
        long_side = max_size // multiple * multiple
        short_side = rounded_up(long_side * short // long)
        shown = short_side * long / long_side
    output_size = (short_side, long_side) if width < height else (long_side, short_side)
    center = ((width + 1) // 2, (height + 1) // 2)
    matrix = affine_matrix(center, shown / SCALE_UNIT, 0.0, (0, 0), output_size)
    return index_to_continuous(matrix), output_size


def index_to_continuous(matrix: np.ndarray) -> np.ndarray:
    """Convert a warp from pixel indices to continuous pixels.

    Args:
        matrix (ndarray): (2, 3), from pixel indices to pixel indices.

    Returns:
        ndarray: (2, 3), from continuous pixels to continuous pixels.
    """
    return _shift_origin(matrix, 0.5)


def matrix_of(transform: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The matrix of an affine function of points.

    Args:
        transform (callable): (N, 2) points -> (N, 2) points.

    Returns:
        ndarray: (2, 3) float64.
    """
    origin, x, y = transform(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    return np.column_stack([x - origin, y - origin, origin])


def warped_image(
    image: np.ndarray,
    matrix: np.ndarray,
    output_size: tuple[int, int],
    interpolation: int = cv2.INTER_LINEAR,
    fill: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
) -> np.ndarray:
    """Warp an image.

    Args:
        image (ndarray): (H, W) or (H, W, C) with C <= 4, of a type that OpenCV has.
        matrix (ndarray): (2, 3), from continuous pixels of the image to continuous pixels of the output.
        output_size (tuple[int, int]): (width, height) of the output.
        interpolation (int): OpenCV's flag.
        fill (Sequence[float]): four channels of the colour outside the image.

    Returns:
        ndarray: (h, w) or (h, w, C) of the same type.
    """
    warped = cv2.warpAffine(
        np.ascontiguousarray(image),
        _shift_origin(matrix, -0.5),
        output_size,
        flags=interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return warped.reshape(*warped.shape[:2], *image.shape[2:])  # OpenCV drops the axis of a single channel


def _shift_origin(matrix, distance):
    """The matrix of a warp for coordinates that are larger by ``distance``, before and after the warp."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    return np.column_stack([linear, offset + distance - linear @ np.full(2, distance)])
