"""Painting figures with OpenCV: in colour, and as a map of body parts that determines occlusion.

Positions are continuous pixels of the final image: ``x``, ``y`` is the position of a figure's ground point and
``height`` the length of a body height.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from .figure import KEYPOINT_PARTS, PARTS, Figure
from .patches import BASE
from .poses import SIDES

# People are painted this many times larger and scaled down, for smooth edges
_OVERSAMPLING = 2
# Fractional bits of OpenCV's fixed-point coordinates
_SHIFT = 4


class PlacedFigure(NamedTuple):
    """A figure and its position in the image."""

    figure: Figure
    x: float
    y: float
    height: float

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Body heights (..., 2), y up, to continuous image pixels, y down."""
        return points * (self.height, -self.height) + (self.x, self.y)


def paint_people(image: np.ndarray, people: Sequence[PlacedFigure]) -> np.ndarray:
    """Paint people over an image.

    Args:
        image (ndarray): (H, W, 3) RGB uint8.
        people (Sequence[PlacedFigure]): from far to near.

    Returns:
        ndarray: (H, W, 3) uint8, a new image.
    """
    height, width = image.shape[:2]
    scale = _OVERSAMPLING
    canvas = cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_NEAREST)
    for person in people:
        outlines = person.figure.outlines
        points = _fixed_point(person.to_pixels(outlines.points) * scale)
        colors = outlines.colors.tolist()
        for tone, i in outlines.order:
            cv2.fillConvexPoly(canvas, points[tone, i], colors[tone][i], cv2.LINE_AA, _SHIFT)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def paint_shadows(image: np.ndarray, people: Sequence[PlacedFigure], strength: float = 0.45) -> None:
    """Darken the ground under people's feet, in place.

    Args:
        image (ndarray): (H, W, 3) uint8.
        people (Sequence[PlacedFigure]): in any order.
        strength (float): 0 = no shadow, 1 = black.
    """
    shadow = np.zeros(image.shape[:2], np.uint8)
    for person in people:
        feet = person.to_pixels(np.array([person.figure.keypoints[f"{side}_ankle"] for side in SIDES]))
        center = np.array([feet[:, 0].mean(), person.y - 0.015 * person.height])
        radii = np.array([0.5 * np.ptp(feet[:, 0]) + 0.12 * person.height, 0.035 * person.height])
        cv2.fillConvexPoly(shadow, _fixed_point(center + radii * _CIRCLE), 255, cv2.LINE_AA, _SHIFT)
    blur = len(image) // 40
    blurred = cv2.blur(shadow, (2 * blur + 1, blur + 1))
    darkness = cv2.merge([cv2.convertScaleAbs(blurred, alpha=strength)] * 3)
    cv2.multiply(image, 255 - darkness, dst=image, scale=1 / 255)


def part_map(person: PlacedFigure, shape: tuple[int, int]) -> np.ndarray:
    """The part of a person that covers each pixel, ignoring other people.

    Args:
        person (PlacedFigure): the person.
        shape (tuple[int, int]): H, W.

    Returns:
        ndarray: (H, W) uint8, 0 = none, ``i + 1`` = ``PARTS[i]``.
    """
    parts = np.zeros(shape, np.uint8)
    outlines = person.figure.outlines
    points = _fixed_point(person.to_pixels(outlines.points[BASE]))
    for tone, i in outlines.order:
        if tone == BASE:
            cv2.fillConvexPoly(parts, points[i], _VALUES[outlines.parts[i]], cv2.LINE_8, _SHIFT)
    return parts


def silhouette(parts: np.ndarray) -> np.ndarray:
    """The pixels of a :func:`part_map` that belong to the person, without the seat: (H, W) bool."""
    return (parts > 0) & (parts != _VALUES["seat"])


def keypoint_visibility(person: PlacedFigure, parts: np.ndarray, hidden: np.ndarray) -> dict[str, int]:
    """COCO's visibility flags of a person.

    Args:
        person (PlacedFigure): the person.
        parts (ndarray): (H, W), the person's :func:`part_map`.
        hidden (ndarray): (H, W) bool, pixels covered by nearer people.

    Returns:
        dict[str, int]: name -> 0 outside the image, 1 hidden by another person or the person's body, 2 visible.
    """
    height, width = parts.shape
    # A keypoint is visible if most of a small disc around it is
    radius = max(1, round(0.012 * person.height))
    flags = {}
    pixels = np.floor(person.to_pixels(np.array(list(person.figure.keypoints.values())))).astype(int).tolist()
    for name, (column, row) in zip(person.figure.keypoints, pixels):
        if not (0 <= column < width and 0 <= row < height):
            flags[name] = 0
        elif name in person.figure.turned_away:
            flags[name] = 1
        else:
            spot = np.s_[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
            shown = np.count_nonzero(_SHOWS[name][parts[spot]] & ~hidden[spot])
            # The disc may extend beyond the silhouette of a thin limb
            flags[name] = 2 if shown and 2 * shown >= np.count_nonzero(parts[spot]) else 1
    return flags


_VALUES = {part: i + 1 for i, part in enumerate(PARTS)}
# Name of a keypoint -> the values of a part map that show it
_SHOWS = {
    name: np.array([False] + [part in parts for part in PARTS], dtype=bool) for name, parts in KEYPOINT_PARTS.items()
}
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 32)), np.sin(np.linspace(0, 2 * np.pi, 32))], axis=1)


def _fixed_point(points):
    """Continuous pixels in OpenCV's fixed-point format, in which the centre of the first pixel is 0."""
    return np.round((points - 0.5) * (1 << _SHIFT)).astype(np.int32)
