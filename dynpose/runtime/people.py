"""The people of an image as arrays, and the way back from pixels of the network's input to the original image.

Axes: N people, K keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["People", "shifted", "to_original_size"]


@dataclass
class People:
    """N people of an image: the fields that PosePredictor's Instances have, as arrays.

    An index, a slice, a mask or an array of indices selects people, as for Instances.

    Attributes:
        image_size (tuple[int, int]): height and width of the image.
        pred_boxes (ndarray): (N, 4) float32, XYXY in continuous pixels.
        scores (ndarray): (N,) float32, descending.
        pred_classes (ndarray): (N,) int64.
        pred_keypoints (ndarray): (N, K, 3) float32, x and y in continuous pixels and a confidence in [0, 1].
        track_ids (ndarray | None): (N,) int64, identities in a video; -1 = not tracked. None = without a tracker.

    Example::

        >>> for person in people[people.scores >= 0.3]:
        ...     print(person.pred_boxes[0].tolist(), person.pred_keypoints[0, :, :2].tolist())
    """

    image_size: tuple[int, int]
    pred_boxes: np.ndarray
    scores: np.ndarray
    pred_classes: np.ndarray
    pred_keypoints: np.ndarray
    track_ids: np.ndarray | None = None

    def __len__(self):
        return len(self.scores)

    def __getitem__(self, selected: Any) -> People:
        if isinstance(selected, (int, np.integer)):
            if not -len(self) <= selected < len(self):
                raise IndexError(f"person {selected} of {len(self)}")
            selected = [selected]
        return People(
            self.image_size,
            self.pred_boxes[selected],
            self.scores[selected],
            self.pred_classes[selected],
            self.pred_keypoints[selected],
            None if self.track_ids is None else self.track_ids[selected],
        )

    def __iter__(self) -> Iterator[People]:
        return (self[index] for index in range(len(self)))


def to_original_size(people: People, height: int, width: int, to_original: np.ndarray | None = None) -> People:
    """Transform people from pixels of the network's input to those of the original image.

    The same float32 operations as detectron2's ``detector_postprocess``, and before it, for an image that was warped,
    the map of the corners of the boxes.

    Args:
        people (People): ``image_size`` is that of the input without its padding.
        height, width (int): of the original image.
        to_original (ndarray | None): (2, 3), from continuous pixels of the input to those of the original image, if the
            image has not only been resized.

    Returns:
        People: boxes are clipped to the image; people with an empty one are dropped. Those with a NaN or infinite box
        are kept, and it is not clipped.
    """
    boxes, keypoints = people.pred_boxes.astype(np.float32), people.pred_keypoints.astype(np.float32)
    if to_original is None:
        scale_x, scale_y = width / people.image_size[1], height / people.image_size[0]
        boxes *= np.array([scale_x, scale_y, scale_x, scale_y], dtype=np.float32)
        keypoints[..., :2] *= np.array([scale_x, scale_y], dtype=np.float32)
    else:
        matrix = to_original.astype(np.float32)
        keypoints[..., :2] = _transformed(keypoints[..., :2], matrix)
        corners = _transformed(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]], matrix)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    finite = np.isfinite(boxes).all(axis=1)
    boxes[finite] = boxes[finite].clip(0, np.array([width, height] * 2, dtype=np.float32))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) | ~finite
    return People((height, width), boxes, people.scores, people.pred_classes, keypoints)[kept]


def shifted(people: People, shift: float) -> People:
    """Shift people in pixels of the original image, from pixel indices to continuous coordinates.

    Args:
        people (People): of :func:`to_original_size`.
        shift (float): added to x and y, pixels.

    Returns:
        People: finite boxes are clipped to the image.
    """
    if not shift:
        return people
    height, width = people.image_size
    boxes, keypoints = people.pred_boxes + np.float32(shift), people.pred_keypoints.copy()
    keypoints[..., :2] += np.float32(shift)
    finite = np.isfinite(boxes).all(axis=1)
    boxes[finite] = boxes[finite].clip(0, np.array([width, height] * 2, dtype=np.float32))
    return replace(people, pred_boxes=boxes, pred_keypoints=keypoints)


def _transformed(points, matrix):
    """Transform points (..., 2) by a (2, 3) matrix."""
    return (points[..., None, :] * matrix[:, :2]).sum(axis=-1) + matrix[:, 2]
