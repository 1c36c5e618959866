"""Training on the region around one person: half-body augmentation and box jitter, as crops or as affine warps.

Both come from top-down methods, where the region is the network's input (half bodies: Wang et al., "Mix and match
augmentation", HRNet's and MMPose's ``RandomHalfBody``; jitter: MMPose's ``RandomBBoxTransform``). Here the other people
in the region remain, and the region is drawn for some of the images.

Letters: P people, K keypoints. Coordinates are continuous pixels of the image; boxes are XYXY.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from .affine import AffineTransform, RandomAffine, affine_matrix_to
from .schema import KeypointSchema

__all__ = ["HalfBody", "PersonAffine", "PersonCrop", "PersonRegion", "PoseAugInput", "upper_body"]

# Smaller regions are extended to this many pixels: an enlarged person of a few pixels shows nothing
_MIN_SIDE = 64
# Longer regions are extended to this ratio of the sides
_MAX_ASPECT = 2.0
_LOWER_BODY = {"hip", "pelvis", "knee", "ankle", "heel", "foot", "toe"}


class PoseAugInput(T.AugInput):
    """detectron2's ``AugInput`` with keypoints, for augmentations whose ``get_transform`` has an argument of that name.

    Args:
        image (ndarray): (H, W, C).
        boxes (ndarray): (P, 4).
        keypoints (ndarray): (P, K, 3), the third value the visibility; transformed in place of the same name. Left and
            right are not exchanged by a flip.
    """

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray, keypoints: np.ndarray):
        super().__init__(image, boxes=boxes)
        self.keypoints = keypoints

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to the image, the boxes and the keypoints, in place."""
        super().transform(tfm)
        if self.keypoints.size:
            # a copy, because some transforms work in place
            points = tfm.apply_coords(self.keypoints[..., :2].copy().reshape(-1, 2))
            points = points.reshape(*self.keypoints.shape[:2], 2)
            self.keypoints = np.concatenate([points, self.keypoints[..., 2:]], axis=2)


@dataclass(frozen=True)
class HalfBody:
    """The half-body augmentation: the region is the upper or the lower half of a person.

    Args:
        upper (tuple[int, ...]): indices of the keypoints of the upper half; the others are the lower one.
        probability (float): of a half body.
        upper_probability (float): of the upper half, when both have enough keypoints.
        min_keypoints (int): number of labelled keypoints that a half must have.
        margin (float): the region is the box around the labelled keypoints of the half, enlarged by this factor.
    """

    upper: tuple[int, ...]
    probability: float = 0.3
    upper_probability: float = 0.7
    min_keypoints: int = 3
    margin: float = 1.5

    def draw(self, keypoints: np.ndarray) -> np.ndarray | None:
        """Draw the half of a person.

        People are candidates if both halves have enough labelled keypoints: a person who is half outside the image is
        a half body already.

        Args:
            keypoints (ndarray): (P, K, 3).

        Returns:
            ndarray | None: (4,) the region; None without candidates.
        """
        labelled = keypoints[..., 2] > 0
        is_upper = np.zeros(keypoints.shape[1], dtype=bool)
        is_upper[list(self.upper)] = True
        counts = np.minimum((labelled & is_upper).sum(axis=1), (labelled & ~is_upper).sum(axis=1))
        candidates = np.flatnonzero(counts >= self.min_keypoints)
        if not len(candidates):
            return None
        person = candidates[np.random.randint(len(candidates))]
        half = is_upper if np.random.random() < self.upper_probability else ~is_upper
        points = keypoints[person, labelled[person] & half, :2]
        return _enlarged(np.concatenate([points.min(axis=0), points.max(axis=0)]), self.margin)


@dataclass(frozen=True)
class PersonRegion:
    """Draws the region around one person for some of the images.

    Args:
        probability (float): of a person's box, shifted and scaled at random.
        scale (tuple[float, float]): range of the size of the region, relative to the box.
        shift (float): maximum shift in x and in y, as a fraction of the box's width and height.
        half_body (HalfBody | None): draws a half body instead of a box for some of the images. It is shifted and scaled
            with ``probability``.

    Raises:
        ValueError: an argument is out of its range.
    """

    probability: float = 0.0
    scale: tuple[float, float] = (1.0, 2.0)
    shift: float = 0.16
    half_body: HalfBody | None = None

    def __post_init__(self):
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, got {self.probability}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale: expected a range of positive factors, the smaller one first, got {self.scale}")
        if not 0 <= self.shift < math.inf:
            raise ValueError(f"shift must be a number of at least 0, got {self.shift}")

    def draw(self, image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
        """Draw a region.

        Args:
            image (ndarray): (H, W, C).
            boxes (ndarray): (P, 4).
            keypoints (ndarray): (P, K, 3).

        Returns:
            ndarray | None: (4,) float64; it contains a pixel of the image, and may extend beyond it. None for an image
            that is not to be cropped, or without people inside.
        """
        jitter = np.random.random() < self.probability
        region = None
        if self.half_body is not None and np.random.random() < self.half_body.probability:
            region = self.half_body.draw(keypoints)
        if region is None and jitter:
            region = _draw_box(boxes, *image.shape[:2])
        if region is None:
            return None
        if jitter:
            shift = np.random.uniform(-self.shift, self.shift, 2) * (region[2:] - region[:2])
            region = _enlarged(region, np.random.uniform(*self.scale)) + np.tile(shift, 2)
        region = _not_too_small(region)
        return region if _is_inside(region, *image.shape[:2]) else None


class PersonCrop(T.Augmentation):
    """Crop to the region around a person, for :class:`PoseAugInput`.

    Args:
        region (PersonRegion): draws it; its part inside the image is the crop.

    Example::

        >>> crop = PersonCrop(PersonRegion(probability=0.5))
        >>> transform = crop(PoseAugInput(image, boxes=boxes, keypoints=keypoints))
    """

    def __init__(self, region: PersonRegion):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray) -> Transform:
        """Draw a crop; see :meth:`PersonRegion.draw` for the arguments.

        Returns:
            Transform: a CropTransform of at least one pixel, or no change.
        """
        region = self.region.draw(image, boxes, keypoints)
        if region is None:
            return NoOpTransform()
        height, width = image.shape[:2]
        x0, y0 = np.maximum(np.floor(region[:2]), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(region[2:]), (width, height)).astype(int).tolist()
        return T.CropTransform(x0, y0, x1 - x0, y1 - y0)


class PersonAffine(T.Augmentation):
    """Warp the region around a person onto a canvas of fixed size, for :class:`PoseAugInput`.

    The region is rotated as by ``affine``, and is centred; the canvas shows all of it.

    Args:
        region (PersonRegion): draws it.
        affine (RandomAffine): gives the canvas and the range of the rotation, and warps the images without a region.
    """

    def __init__(self, region: PersonRegion, affine: RandomAffine):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray) -> AffineTransform:
        """Draw a warp; see :meth:`PersonRegion.draw` for the arguments.

        Returns:
            AffineTransform
        """
        region = self.region.draw(image, boxes, keypoints)
        if region is None:
            return self.affine.get_transform(image)
        rotation = (2 * np.random.random() - 1) * self.affine.rotation
        matrix = affine_matrix_to(region, rotation, self.affine.size)
        return AffineTransform(matrix, image.shape[1::-1], self.affine.size, self.affine.fill)


def upper_body(schema: KeypointSchema, names: Sequence[str] = ()) -> tuple[int, ...]:
    """Find the keypoints of the upper half of the body.

    Args:
        schema (KeypointSchema): K keypoints.
        names (Sequence[str]): their names; empty = in a schema with shoulders and ankles, all but hips, pelvis, knees,
            ankles and feet.

    Returns:
        tuple[int, ...]: indices, at least one and fewer than K.

    Raises:
        ValueError: a name is unknown, a half is empty or has one keypoint of a flip pair only, or the schema has no
            shoulders and ankles and ``names`` is empty.

    Example::

        >>> len(upper_body(COCO_PERSON))
        11
    """
    names = list(names) or _known_upper_body(schema)
    unknown = [name for name in names if name not in schema.names]
    if unknown:
        raise ValueError(f"unknown keypoint {unknown[0]!r}; known are {', '.join(schema.names)}")
    for left, right in schema.flip_pairs:
        if (left in names) != (right in names):
            raise ValueError(f"{left!r} and {right!r} are a pair, but only one of them is in the upper half: give both")
    upper = tuple(index for index, name in enumerate(schema.names) if name in names)
    if len(upper) == schema.num_keypoints:
        raise ValueError("all keypoints are in the upper half: name fewer")
    return upper


def _known_upper_body(schema):
    words = {name: {word.removesuffix("s") for word in re.findall("[a-z]+", name.lower())} for name in schema.names}
    found = set().union(*words.values())
    if not {"shoulder", "ankle"} <= found:
        raise ValueError(
            f"the keypoints {', '.join(schema.names[:5])}, ... have no shoulders and ankles: name the keypoints of the "
            "upper half"
        )
    return [name for name in schema.names if not words[name] & _LOWER_BODY]


def _draw_box(boxes, height, width):
    """Draw a box with a part inside the image; None without any."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    inside = np.flatnonzero([_is_inside(box, height, width) for box in boxes])
    return boxes[inside[np.random.randint(len(inside))]] if len(inside) else None


def _is_inside(region, height, width):
    """Whether the region contains a part of the image, at least a pixel wide and high."""
    sides = np.minimum(region[2:], (width, height)) - np.maximum(region[:2], 0)
    return bool((sides >= 1).all())


def _enlarged(region, factor):
    center, half = (region[:2] + region[2:]) / 2, (region[2:] - region[:2]) / 2 * factor
    return np.concatenate([center - half, center + half])


def _not_too_small(region):
    """Extend a region symmetrically to the minimum side and the maximum aspect ratio."""
    center, sides = (region[:2] + region[2:]) / 2, region[2:] - region[:2]
    sides = np.maximum(sides, max(_MIN_SIDE, sides.max() / _MAX_ASPECT))
    return np.concatenate([center - sides / 2, center + sides / 2])
