"""Regions of an image with people whose keypoints are not labelled; training ignores them.

Segmentations are COCO's: polygons in continuous pixels, or run-length encodings (RLE) of the whole image.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from detectron2.structures import BoxMode, PolygonMasks
from pycocotools import mask as mask_util

__all__ = ["draw_ignored_regions", "has_labelled_keypoints", "read_segmentation", "segmentation_area"]

# Runs in COCO's compressed encoding: groups of five bits per character, starting at "0"
_FIRST_CHARACTER = ord("0")
# Maximum bits of a run: more pixels than an image has
_MAX_BITS = 40
# pycocotools walks along the edges of polygons: maximum length of one, in half perimeters (H + W) of its image
_MAX_LENGTH = 100
_PLAIN_NUMBERS = {int, float}


def draw_ignored_regions(annotations: Iterable[dict[str, Any]], height: int, width: int) -> np.ndarray:
    """Draw crowds, and people without labelled keypoints.

    A crowd without a segmentation is drawn as its box. A single person without one is not drawn: the box covers much
    background, and may contain other people.

    Args:
        annotations (Iterable[dict]): annotations of an image, in detectron2's format.
        height, width (int): size of the image.

    Returns:
        ndarray: (H, W) uint8, 1 in regions to ignore.

    Raises:
        ValueError: see :func:`read_segmentation`.
    """
    ignored = np.zeros((height, width), dtype=np.uint8)
    for annotation in annotations:
        is_crowd = annotation.get("iscrowd")
        if not is_crowd and has_labelled_keypoints(annotation):
            continue
        segmentation = read_segmentation(annotation.get("segmentation"), height, width)
        if segmentation is not None:
            ignored |= _draw(segmentation, height, width)
        elif is_crowd:
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
            # The pixels whose centres are in the box
            x0, y0, x1, y1 = np.ceil(np.maximum(box, 0) - 0.5).astype(int)
            ignored[y0:y1, x0:x1] = 1
    return ignored


def has_labelled_keypoints(annotation: dict[str, Any]) -> bool:
    """Whether an annotation in detectron2's format has a keypoint of visibility 1 or 2."""
    keypoints = annotation.get("keypoints")
    if keypoints is None:
        return False
    if hasattr(keypoints, "reshape"):  # from a custom loader: K x 3, or flat
        keypoints = keypoints.reshape(-1)
    return any(keypoints[2::3])


def segmentation_area(segmentation: Any, height: float, width: float) -> float | None:
    """The area of a segmentation as COCO counts it.

    Args:
        segmentation (object): as in a file.
        height, width (float): size of its image, pixels; NaN = unknown.

    Returns:
        float | None: the sum of the polygons' areas, or the RLE's number of pixels; None if the segmentation is missing
        or invalid.
    """
    if not isinstance(segmentation, (list, dict)) or math.isnan(height) or math.isnan(width):
        return None
    try:
        segmentation = read_segmentation(segmentation, int(height), int(width))
    except ValueError:
        return None
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        return PolygonMasks([segmentation]).area().item()
    return float(mask_util.area(segmentation))


def read_segmentation(segmentation: Any, height: int, width: int) -> list[list[float]] | dict[str, Any] | None:
    """Check a segmentation.

    Args:
        segmentation (list | dict | None): polygons, each of x y x y ..., or an RLE, compressed or not.
        height, width (int): of its image.

    Returns:
        list | dict | None: the polygons of three points or more, or the compressed RLE, as in detectron2's
        ``load_coco_json``; None if nothing remains.

    Raises:
        ValueError: it is something else or of another image size; the message follows the word "segmentation".
    """
    if segmentation is None or (isinstance(segmentation, (list, dict)) and not segmentation):
        return None
    if isinstance(segmentation, dict):
        return _read_rle(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise ValueError(f"is {segmentation!r}, neither polygons nor an RLE")
    for polygon in segmentation:
        if not _is_plain_polygon(polygon, height, width):
            _check_polygon(polygon, height, width)
    return [polygon for polygon in segmentation if len(polygon) >= 6] or None


def _is_plain_polygon(polygon, height, width):
    """Whether a polygon needs no further check: few points, all of them in the image.

    Data sets have a hundred thousand such polygons, for which arrays are slow.
    """
    if type(polygon) is not list or len(polygon) % 2 or not 0 < len(polygon) <= 2 * _MAX_LENGTH:
        return False
    if not set(map(type, polygon)) <= _PLAIN_NUMBERS:
        return False
    xs, ys = polygon[0::2], polygon[1::2]
    inside = min(xs) >= 0 and max(xs) <= width and min(ys) >= 0 and max(ys) <= height
    # min and max may miss a NaN
    return inside and not math.isnan(sum(polygon))


def _check_polygon(polygon, height, width):
    points = _finite_points(polygon)
    if points is None:
        raise ValueError(f"has a polygon that is not finite numbers x, y, x, y, ...: {str(polygon)[:80]}")
    beyond = np.maximum(0 - points, points - (width, height)).max(initial=0)
    length = np.abs(points - np.roll(points, 1, axis=0)).sum()
    if beyond > height + width or length > _MAX_LENGTH * (height + width):
        raise ValueError(
            f"has a polygon that reaches {beyond:g} pixels out of its image of {width} x {height}, over {length:g} "
            f"pixels in all: {str(polygon)[:80]}"
        )


def _finite_points(polygon):
    """(P, 2) float64, or None if the polygon is not 2 P finite numbers."""
    try:
        numbers = np.asarray(polygon)
    except ValueError:  # lists of unequal length
        return None
    if numbers.ndim != 1 or len(numbers) % 2:
        return None
    if len(numbers) and (numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all()):
        return None
    return numbers.astype(np.float64).reshape(-1, 2)


def _read_rle(rle, height, width):
    if not isinstance(rle.get("size"), (list, tuple)) or list(rle["size"]) != [height, width]:
        raise ValueError(f"is an RLE of size {rle.get('size')!r}, its image has [height, width] {[height, width]}")
    counts = rle.get("counts")
    if isinstance(counts, (str, bytes)):
        runs = _read_runs(counts)
    else:
        try:
            runs = np.asarray(counts)
        except ValueError:  # lists of unequal length
            runs = None
        if runs is None or runs.ndim != 1 or runs.dtype.kind not in "iu":
            raise ValueError(f"is an RLE whose counts are neither whole numbers nor a string: {str(counts)[:80]}")
        rle = {"size": [height, width], "counts": counts}
    # pycocotools does not check them, and returns uninitialised memory if they end early.
    if min(runs) < 0 or sum(map(int, runs)) != height * width:
        raise ValueError(f"is an RLE whose counts do not make the {height} x {width} pixels of its image")
    return mask_util.frPyObjects(rle, height, width) if isinstance(counts, list) else rle


def _read_runs(counts):
    """The lengths of the runs of a compressed RLE."""
    runs, value, shift = [], 0, 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        group = character - _FIRST_CHARACTER
        if not 0 <= group < 64:
            raise ValueError(f"is an RLE with a character in its counts that none has: {chr(character)!r}")
        value |= (group & 31) << shift
        shift += 5
        if shift > _MAX_BITS:
            raise ValueError("is an RLE with a run longer than any image")
        if group & 32:
            continue
        if group & 16:  # the sign
            value -= 1 << shift
        # From the fourth run on, the difference to the run before the last
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift or not runs:
        raise ValueError("is an RLE whose counts are cut off")
    return runs


def _draw(segmentation, height, width):
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    return mask_util.decode(segmentation)
