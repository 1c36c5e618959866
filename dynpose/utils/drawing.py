"""Drawing poses on images.

Uses OpenCV's primitives instead of detectron2's Visualizer, which works with these models too but draws lines of one
width for all people and every keypoint in red. For keypoints with COCO's names it adds lines from the nose to the
middle of the shoulders, and from there to the middle of the hips.

Axes: N people, K keypoints.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from detectron2.data.catalog import Metadata

from .text import draw_text, text_size

if TYPE_CHECKING:
    from detectron2.structures import Instances

    from dynpose.data import KeypointSchema

_MIN_SHORT_SIDE = 480
_MAX_ENLARGED_LONG_SIDE = 1920
_DARK, _WHITE = (30, 30, 30), (255, 255, 255)
# Fractional bits of OpenCV's fixed-point coordinates
_SHIFT = 4


def draw_poses(
    image_rgb: np.ndarray,
    instances: Instances,
    schema: KeypointSchema,
    *,
    score_threshold: float = 0.3,
    keypoint_threshold: float = 0.02,
    show_boxes: bool = True,
    show_scores: bool = True,
    show_labels: bool | None = None,
    class_names: Sequence[str] = (),
    line_width: float | None = None,
    point_radius: float | None = None,
) -> np.ndarray:
    """Draw people with their limbs, keypoints, boxes, class names and scores on a copy of an image.

    Keypoints that are not finite, and people whose score or box is not, are skipped.

    Limbs and keypoints of the left side are blue, of the right side orange, all others green. A tracked person has one
    colour, that of the identity, which is written before the name and the score. People with the highest scores are on
    top. An image whose shorter side is under 480 pixels is enlarged first, so that lines and scores are legible. Class
    names may be in any script, see :func:`~dynpose.utils.text.draw_text`.

    The confidence of a keypoint is the probability of its heatmap's peak among all cells of the map, which is small
    even for a correct keypoint: a Gaussian peak with a standard deviation of s cells has 1 / (2 pi s^2). The default
    threshold drops peaks wider than s = 2.8 cells: 23 pixels of the network's input at stride 8. Without any evidence
    the confidence is one over the number of cells, about 0.0001.

    Args:
        image_rgb (ndarray): (H, W, 3) uint8.
        instances (Instances): with ``pred_boxes``, ``scores`` and ``pred_keypoints`` (N, K, 3) in continuous pixels of
            the image; optionally with ``track_ids`` (N,), -1 = not tracked.
        schema (KeypointSchema): gives the sides and the limbs of the K keypoints; it may have no limbs.
        score_threshold (float): people with a lower score are skipped.
        keypoint_threshold (float): keypoints with a lower confidence, and their limbs, are skipped.
        show_boxes (bool): draw boxes.
        show_scores (bool): write scores.
        show_labels (bool | None): write class names; None = if there are several classes.
        class_names (Sequence[str]): in the order of ``pred_classes``; a missing one is written as its index.
        line_width (float | None): of limbs, pixels of the returned picture; None = a fiftieth of the person's size,
            within limits that grow with the image.
        point_radius (float | None): of keypoints, pixels of the returned picture; None = 1.1 times the width of limbs.

    Returns:
        ndarray: (H', W', 3) uint8 RGB, H' = H and W' = W unless the image was enlarged.

    Raises:
        ValueError: the instances have another number of keypoints than the schema, or a width or radius is not
            positive.

    Example::

        >>> draw_poses(image_bgr[:, :, ::-1], predictor(image_bgr), predictor.schema)
    """
    instances = instances.to("cpu")
    num_keypoints = instances.pred_keypoints.shape[1]
    if num_keypoints != schema.num_keypoints:
        raise ValueError(f"instances of {num_keypoints} keypoints, but a schema of {schema.num_keypoints}")
    for name, value in (("line_width", line_width), ("point_radius", point_radius)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}: give a positive number of pixels")
    has_place = instances.pred_boxes.tensor.isfinite().all(dim=1) & instances.scores.isfinite()
    instances = instances[has_place & (instances.scores >= score_threshold)]
    instances = instances[instances.scores.argsort()]

    canvas, scale = _enlarge(np.asarray(image_rgb))
    boxes = instances.pred_boxes.tensor.numpy() * scale
    keypoints = instances.pred_keypoints.numpy()
    visible = (keypoints[..., 2] >= keypoint_threshold) & np.isfinite(keypoints).all(axis=2)
    points = keypoints[..., :2] * scale
    # widths and letters are designed for an image of the minimum size
    unit = max(1.0, min(canvas.shape[:2]) / _MIN_SHORT_SIDE)

    side_colors = _colors(schema)
    track_ids = instances.track_ids.tolist() if instances.has("track_ids") else [-1] * len(instances)
    for box, person, seen, track_id in zip(boxes, points, visible, track_ids):
        limb_colors, point_colors = side_colors if track_id < 0 else _track_colors(track_id, schema)
        if show_boxes:
            _rectangle(canvas, box, round(unit), _WHITE if track_id < 0 else _track_color(track_id))
        width = line_width or float(np.clip(np.sqrt(np.prod(box[2:] - box[:2])) / 50, 1.6 * unit, 4 * unit))
        radius = point_radius or 1.1 * width
        limbs = [(*person[[a, b]], color) for (a, b), color in zip(schema.skeleton, limb_colors) if seen[[a, b]].all()]
        # all outlines first, as they would otherwise cut limbs that meet
        for a, b, _ in limbs:
            draw_line(canvas, a, b, _DARK, width + 2 * unit)
        for a, b, color in limbs:
            draw_line(canvas, a, b, color, width)
        for point, color in zip(person[seen], point_colors[seen].tolist()):
            draw_disc(canvas, point, _DARK, radius + 1.2 * unit)
            draw_disc(canvas, point, color, radius)
    names = _class_names(instances, class_names, show_labels)
    scores = [f"{score:.2f}" if show_scores else "" for score in instances.scores.tolist()]
    identities = [f"#{track_id}" if show_scores and track_id >= 0 else "" for track_id in track_ids]
    for box, *parts in zip(boxes, identities, names, scores):
        if any(parts):
            _label(canvas, " ".join(filter(None, parts)), box, unit)
    return canvas


def _class_names(instances, class_names, show_labels):
    """The class name to write for each person; "" = none."""
    if show_labels is None:
        show_labels = len(class_names) > 1
    if not show_labels:
        return [""] * len(instances)
    classes = instances.pred_classes.tolist()
    return [class_names[index] if index < len(class_names) else str(index) for index in classes]


def _enlarge(image):
    height, width = image.shape[:2]
    scale = max(1.0, min(_MIN_SHORT_SIDE / min(height, width), _MAX_ENLARGED_LONG_SIDE / max(height, width)))
    if scale == 1:
        return np.ascontiguousarray(image).copy(), 1.0
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), scale


def _colors(schema):
    """One colour per limb, as in the schema's metadata, and (K, 3) colours of the keypoints by the same rule."""
    # a limb from a keypoint to itself has that keypoint's colour
    points = tuple((index, index) for index in range(schema.num_keypoints))
    metadata = Metadata()
    dataclasses.replace(schema, skeleton=schema.skeleton + points).to_metadata(metadata)
    colors = [color for *_, color in metadata.keypoint_connection_rules]
    return colors[: -len(points)], np.array(colors[-len(points) :])


def _track_color(track_id):
    """The RGB colour of an identity: those of successive ones differ most, by the golden ratio of the hues."""
    red, green, blue = colorsys.hsv_to_rgb(track_id * 0.618033988749895 % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _track_colors(track_id, schema):
    """What _colors gives, for a tracked person."""
    color = _track_color(track_id)
    return [color] * len(schema.skeleton), np.array([color] * schema.num_keypoints)


def _fixed(image, point):
    """Continuous pixels to OpenCV's fixed-point numbers, in which integers are pixel centres."""
    # points far outside would overflow
    limit = 4 * max(image.shape[:2])
    return tuple(int(v) for v in np.rint((np.clip(point, -limit, limit) - 0.5) * 2**_SHIFT))


def draw_line(image: np.ndarray, a: np.ndarray, b: np.ndarray, color: tuple[int, int, int], width: float) -> None:
    """Draw a line between two points (2,) on an image (H, W, 3), in place; continuous pixels."""
    ends = _fixed(image, a), _fixed(image, b)
    cv2.line(image, *ends, color, max(1, round(width)), lineType=cv2.LINE_AA, shift=_SHIFT)


def draw_disc(image: np.ndarray, center: np.ndarray, color: tuple[int, int, int], radius: float) -> None:
    """Draw a disc around a point (2,) on an image (H, W, 3), in place; continuous pixels."""
    cv2.circle(
        image, _fixed(image, center), round(radius * 2**_SHIFT), color, cv2.FILLED, lineType=cv2.LINE_AA, shift=_SHIFT
    )


def _rectangle(image, box, width, color):
    # on whole pixels, so that thin lines are sharp
    x0, y0, x1, y1 = np.clip(box, 0, np.tile(image.shape[1::-1], 2) - 1).astype(int).tolist()
    cv2.rectangle(image, (x0, y0), (x1, y1), _DARK, width + 2)
    cv2.rectangle(image, (x0, y0), (x1, y1), color, width)


def _label(image, text, box, unit):
    """Draw text on a dark background at the upper left corner of a box, inside the image."""
    size, margin = 12 * unit, round(3 * unit)
    width, height = text_size(text, size)
    limit = np.array(image.shape[1::-1]) - (width + 2 * margin, height + 2)
    x, y = np.clip(np.rint(box[:2]), 0, np.maximum(limit, 0)).astype(int).tolist()
    cv2.rectangle(image, (x, y), (x + width + 2 * margin, y + height), _DARK, cv2.FILLED)
    draw_text(image, text, (x + margin, y), size, _WHITE)
