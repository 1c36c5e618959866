"""Images of synthetic people with their annotation."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import cv2
import numpy as np

from ..schema import COCO_PERSON, DatasetError
from .background import paint_background
from .figure import Figure
from .looks import sample_body, sample_outfit
from .painting import PlacedFigure, keypoint_visibility, paint_people, paint_shadows, part_map, silhouette
from .poses import sample_pose

SPLITS = ("train", "val")
CATEGORY_ID = 1

# A person with fewer visible keypoints is moved, and finally omitted, as no model could be expected to detect them.
_MIN_VISIBLE_KEYPOINTS = 5
_MIN_VISIBLE_AREA = 0.3
_MAX_MOVES = 12


@dataclass(frozen=True)
class SyntheticPose:
    """A procedural data set of people: image ``i`` depends on the parameters, the split and ``i`` alone.

    Args:
        seed (int): seed of all random numbers, not negative.
        image_size (tuple[int, int]): height and width, pixels, at least 32.
        people (tuple[int, int]): minimum and maximum number of people in an image. A person for whom no visible
            position is found is omitted, so a crowded image may have fewer.
        crowding (float): 0 = people keep apart where there is room, 1 = they all gather around one point.
        scale (tuple[float, float]): height of a standing person as a fraction of the image's height.
        truncation (float): fraction of the people cut by the image's border.

    Raises:
        DatasetError: a parameter is outside its range.

    Example::

        >>> image, annotations = SyntheticPose(image_size=(192, 192)).render(0)
    """

    seed: int = 0
    image_size: tuple[int, int] = (256, 256)
    people: tuple[int, int] = (1, 3)
    crowding: float = 0.3
    scale: tuple[float, float] = (0.4, 0.9)
    truncation: float = 0.2

    def __post_init__(self):
        for field in ("image_size", "people", "scale"):
            # Lists from a config become tuples, so that equal parameters compare equal
            if isinstance(getattr(self, field), list):
                object.__setattr__(self, field, tuple(getattr(self, field)))
        image_size, people, scale = self.image_size, self.people, self.scale
        for field, valid, rule in (
            ("seed", isinstance(self.seed, Integral) and self.seed >= 0, "an integer, at least 0"),
            ("image_size", _is_pair(image_size, Integral) and min(image_size) >= 32, "height and width, at least 32"),
            ("people", _is_pair(people, Integral) and 0 <= people[0] <= people[1], "fewest and most, fewest first"),
            ("crowding", 0 <= self.crowding <= 1, "between 0 and 1"),
            ("scale", _is_pair(scale, Real) and 0 < scale[0] <= scale[1], "two positive numbers, lower first"),
            ("truncation", 0 <= self.truncation <= 1, "between 0 and 1"),
        ):
            if not valid:
                raise DatasetError(f"synthetic people: {field} is {getattr(self, field)!r}, but must be {rule}")

    def render(self, index: int, split: str = "train") -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Make one image.

        Args:
            index (int): index of the image in the split.
            split (str): "train" or "val": disjoint random streams.

        Returns:
            tuple: the image (H, W, 3) RGB uint8, and a list of annotations as in a COCO file, nearest person first:
            ``bbox`` (XYWH, around the person's silhouette within the image, including occluded parts), ``area``
            (pixels of that silhouette), ``keypoints`` (3K numbers, COCO's pixel indices: 0.5 less than continuous
            pixels), ``num_keypoints``, ``iscrowd``, ``category_id`` (1).
        """
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(split), index)))
        height, width = self.image_size
        horizon = rng.uniform(0.25, 0.45) * height
        people, annotations = self._place_people(rng, horizon)
        image = paint_background(rng, height, width, horizon)
        paint_shadows(image, people)
        image = paint_people(image, people[::-1])
        return _expose(rng, image), annotations

    def _place_people(self, rng, horizon):
        """Draw people and their positions, nearest first, so that each one's visibility is final when it is placed."""
        height, width = self.image_size
        count = int(rng.integers(self.people[0], self.people[1] + 1))
        # All stand on one ground, seen from this many body heights above it: larger people are nearer and lower.
        camera = float(np.clip(rng.uniform(0.9, 1.02) * (0.98 * height - horizon) / (self.scale[1] * height), 0.3, 1.6))
        light = float(rng.choice((-1, 1)) * rng.uniform(0.35, 0.8))
        pitch = rng.uniform(2, 10)
        spots = (rng.permutation(count) + 0.5) / max(count, 1) * width
        gathering = rng.uniform(0.3, 0.7) * width
        hidden = np.zeros((height, width), bool)
        people, annotations = [], []
        for scale, spot in zip(np.sort(rng.uniform(*self.scale, count))[::-1], spots):
            figure = Figure(
                body=sample_body(rng),
                outfit=sample_outfit(rng),
                pose=sample_pose(rng),
                yaw=_sample_yaw(rng),
                pitch=pitch,
                light=light,
            )
            size = scale * height
            ground = horizon + camera * size
            middle = (1 - self.crowding) * spot + self.crowding * gathering
            cut = rng.random() < self.truncation
            for move in range(_MAX_MOVES):
                jitter = rng.normal(0, 0.06 * size + 0.05 * move * width)
                person = self._stand(figure, middle + jitter, ground, size)
                if cut and move < _MAX_MOVES // 2:
                    person = self._push_out(rng, person, nearest=not people)
                annotation, parts = _annotate(person, hidden)
                if annotation is not None:
                    people.append(person)
                    annotations.append(annotation)
                    hidden |= parts > 0
                    break
        return people, annotations

    def _stand(self, figure, x, ground, size):
        """Place a figure on the ground, completely within the image if there is room."""
        height, width = self.image_size
        left, _, right, top = np.array(figure.bounds) * size
        if right - left < width:
            x = float(np.clip(x, -left, width - right))
        return PlacedFigure(figure, x, min(max(ground, top + 1), height - 0.01 * size), size)

    def _push_out(self, rng, person, nearest):
        """Move a person so that the image's border cuts them; only the nearest is cut by the lower or upper border."""
        height, width = self.image_size
        left, _, right, top = np.array(person.figure.bounds) * person.height
        side = rng.choice(("left", "right", "bottom", "top"), p=(0.25, 0.25, 0.4, 0.1) if nearest else (0.5, 0.5, 0, 0))
        part = rng.uniform(0.15, 0.4)
        if side == "left":
            return person._replace(x=-left - part * (right - left))
        if side == "right":
            return person._replace(x=width - right + part * (right - left))
        if side == "bottom":
            return person._replace(y=height + part * top)
        return person._replace(y=(1 - 0.4 * part) * top)


def _is_pair(value, kind):
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(item, kind) for item in value)


def _sample_yaw(rng):
    """Draw the direction that a person faces: mostly to the camera, as in photographs."""
    if rng.random() < 0.5:
        return float(rng.normal(0, 28))
    return float(rng.uniform(-180, 180))


def _annotate(person, hidden):
    """COCO annotation of a person and their part map; the annotation is None if too little of them is visible."""
    parts = part_map(person, hidden.shape)
    mask = silhouette(parts)
    area = int(mask.sum())
    flags = keypoint_visibility(person, parts, hidden)
    seen = sum(flag == 2 for flag in flags.values())
    if seen < _MIN_VISIBLE_KEYPOINTS or (mask & ~hidden).sum() < _MIN_VISIBLE_AREA * area:
        return None, parts
    height, width = hidden.shape
    keypoints = []
    for name in COCO_PERSON.names:
        # COCO's coordinates are those of pixel centres, continuous ones half a pixel more
        x, y = np.clip(person.to_pixels(person.figure.keypoints[name]) - 0.5, 0, (width - 1, height - 1))
        keypoints += [round(float(x), 1), round(float(y), 1), flags[name]] if flags[name] else [0, 0, 0]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x0, y0, x1, y1 = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    annotation = {
        "category_id": CATEGORY_ID,
        "iscrowd": 0,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": area,
        "num_keypoints": sum(flag > 0 for flag in flags.values()),
        "keypoints": keypoints,
    }
    return annotation, parts


def _expose(rng, image):
    """Vary brightness and contrast and add sensor noise."""
    contrast, brightness, amount = rng.uniform(0.88, 1.1), rng.uniform(-12, 12), int(rng.integers(2, 7))
    noise = rng.integers(0, 2 * amount + 1, image.shape[:2], dtype=np.uint8)
    return cv2.addWeighted(image, contrast, cv2.merge([noise] * 3), 1.0, 128 * (1 - contrast) + brightness - amount)
