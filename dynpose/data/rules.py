"""The rules for annotations that training, evaluation and ``dynpose check-data`` share.

:data:`RULES` lists the deviations that are corrected, skipped, or read unchanged and reported. Any other deviation is a
fault, and refused. docs/datasets.md has the same table with reasons.

The functions below the table check boxes and areas of M annotations. They change no file whose boxes have an extent and
whose areas are possible for a region of the box.

Boxes are (M, 4) x, y, width, height and keypoints (M, K, 3) x, y, visibility, all in continuous pixels; NaN is missing.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode

__all__ = [
    "RULES",
    "Remarks",
    "Rule",
    "boxes_from_keypoints",
    "implausible_areas",
    "is_learnable",
    "is_learnable_person",
]

BOX_MARGIN = 0.1
"""Margin of a box from keypoints on each side, as a fraction of the longer side of their extent."""

MIN_BOX_MARGIN = 0.025
"""Minimum margin, as a fraction of the image's longer side: a single keypoint has no extent."""

MIN_EXTENT = 1e-6
"""A box whose width or height is smaller, pixels, has no extent: apart from rounding it is a line."""

MIN_BOX_MARGIN_PIXELS = 8.0
"""Minimum margin if the size of the image is unknown, pixels."""


class Rule(NamedTuple):
    """The decision about an item, and the text that follows the number of items in a log."""

    decision: str
    text: str


RULES = {
    # corrected: read with the intended meaning
    "box": Rule(
        "corrected", "have no box, or one without an extent: replaced by a box around their labelled keypoints"
    ),
    "box from segmentation": Rule(
        "corrected", "have no box, or one without an extent, and no labelled keypoint: replaced by their segmentation's"
    ),
    "missing area": Rule("corrected", "have no area: replaced by that of the segmentation or, without one, of the box"),
    "implausible area": Rule(
        "corrected",
        "have an area that a region of their box cannot have (0, a placeholder of 1, negative, larger than the box): "
        "it is treated as missing",
    ),
    "annotation ids": Rule("corrected", "have no id or one that occurs twice: they are renumbered"),
    "missing category": Rule("corrected", "have no category_id: they are assigned to the file's only category"),
    "missing coordinates": Rule("corrected", "have keypoints without coordinates and with visibility 0: not labelled"),
    "x and y alone": Rule(
        "corrected", "have keypoints of x and y without a visibility: all labelled, except those at (0, 0)"
    ),
    "backslashes": Rule("corrected", "have a file_name with backslashes: read as slashes"),
    "split fields": Rule("corrected", "have keypoints in several fields (foot_kpts, face_kpts, ...): read as one list"),
    # skipped
    "other categories": Rule("skipped", "are of categories that have no keypoints or are not selected"),
    "nothing annotated": Rule("skipped", "have neither a box nor a labelled keypoint nor a segmentation"),
    # reported: read unchanged
    "num_keypoints": Rule("reported", "have another num_keypoints than labelled keypoints: the flags decide"),
    "outside the image": Rule(
        "reported", "have labelled keypoints outside the image: not used in training, and evaluated as in pycocotools"
    ),
    "far from the box": Rule("reported", "have labelled keypoints far outside their box"),
    "not labelled": Rule("reported", "have no labelled keypoint: trained as boxes"),
    "less than a pixel": Rule("reported", "have less than a pixel of their box in the image: not used in training"),
    "leaves the image": Rule(
        "reported", "have a box that leaves the image by more than a tenth of its side: are they corners?"
    ),
    "annotated twice": Rule("reported", "have the same labelled keypoints as another annotation of their image"),
    "box from (0, 0)": Rule("reported", "have a box that starts at (0, 0), far from their keypoints"),
    "point at (0, 0)": Rule("reported", "have a labelled keypoint at exactly (0, 0): often a missing one"),
    "unread fields": Rule("reported", "have foot_kpts, face_kpts, ...: read only with schema: coco_wholebody"),
    "images twice": Rule("reported", "are listed more than once, under several ids"),
}  # fmt: skip
"""Name -> rule. The counted items are annotations, except for "backslashes" and "images twice": images."""

_OF_IMAGES = ("backslashes", "images twice")


class Remarks:
    """Counts the items that each rule applies to, and keeps a few examples.

    Args:
        num_examples (int): maximum number of examples per rule.

    Attributes:
        counts (dict[str, int]): by the rule's name.
        examples (dict[str, list[str]]): names of items, by the rule's name.
        totals (dict[str, int]): number of checked items by type, "images" or "annotations".
    """

    def __init__(self, num_examples: int = 50):
        self.num_examples = num_examples
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.totals: dict[str, int] = {}

    def add(self, rule: str, items: Sequence[str]) -> None:
        """Count items.

        Args:
            rule (str): key of :data:`RULES`.
            items (Sequence[str]): their names; for "other categories", the names of their categories.
        """
        if len(items) == 0:
            return
        self.counts[rule] = self.counts.get(rule, 0) + len(items)
        kept = self.examples.setdefault(rule, [])
        if rule == "other categories":
            items = [f"{count} of {name!r}" for name, count in Counter(items).most_common()]
        kept.extend(items[: self.num_examples - len(kept)])

    def merge(self, other: "Remarks") -> None:
        """Add the counts and examples of other remarks, such as those of another file."""
        for rule, count in other.counts.items():
            self.counts[rule] = self.counts.get(rule, 0) + count
            kept = self.examples.setdefault(rule, [])
            kept.extend(other.examples[rule][: self.num_examples - len(kept)])
        for kind, total in other.totals.items():
            self.totals[kind] = self.totals.get(kind, 0) + total

    def drop(self, rule: str) -> None:
        """Discard the items of a rule that does not apply to a data set."""
        self.counts.pop(rule, None)
        self.examples.pop(rule, None)

    def of(self, *decisions: str, num_examples: int = 3) -> list[str]:
        """Lines such as "3 of 20 annotations have no area: ...", for the rules with the given decisions.

        Args:
            decisions (str): "corrected", "skipped" or "reported".
            num_examples (int): maximum number of examples in a line.

        Returns:
            list[str]
        """
        lines = []
        for rule, count in self.counts.items():
            if RULES[rule].decision in decisions:
                kind = "images" if rule in _OF_IMAGES else "annotations"
                # each category is named once
                num_items = len(self.examples[rule]) if rule == "other categories" else count
                shown = self.examples[rule][:num_examples]
                examples = ", ".join(shown) + (", ..." if num_items > len(shown) else "")
                lines.append(f"{count} of {self.totals.get(kind, count)} {kind} {RULES[rule].text} ({examples})")
        return lines


def boxes_from_keypoints(keypoints: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes around labelled keypoints, for people without a box.

    The extent of the labelled keypoints grows on each side by :data:`BOX_MARGIN` of its longer side, at least by
    :data:`MIN_BOX_MARGIN` of the image's longer side, and is clipped at image edges that no keypoint lies beyond.

    Args:
        keypoints (ndarray): (M, K, 3), with at least one labelled keypoint in each annotation.
        sizes (ndarray): (M, 2) width and height of their images, pixels.

    Returns:
        ndarray: (M, 4).

    Example::

        >>> boxes_from_keypoints(np.array([[[100.0, 50.0, 2.0]]]), np.array([[640.0, 480.0]]))
        array([[84., 34., 32., 32.]])
    """
    labelled = keypoints[..., 2:] > 0
    low = np.where(labelled, keypoints[..., :2], np.inf).min(axis=1)
    high = np.where(labelled, keypoints[..., :2], -np.inf).max(axis=1)
    least = np.where(np.isnan(sizes), 0, sizes).max(axis=1) * MIN_BOX_MARGIN
    least = np.where(least > 0, least, MIN_BOX_MARGIN_PIXELS)
    margin = np.maximum((high - low).max(axis=1) * BOX_MARGIN, least)[:, None]
    # a keypoint outside the image keeps its margin
    first = np.where(low >= 0, np.maximum(low - margin, 0), low - margin)
    last = np.where(high <= sizes, np.fmin(high + margin, sizes), high + margin)
    return np.concatenate([first, last - first], axis=1)


def implausible_areas(areas: np.ndarray, boxes: np.ndarray, has_own_box: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Find areas that are impossible for a region with the given bounding box.

    Valid areas are above 0 and at most ``(width + 1) * (height + 1)`` of the box, whose sides may be rounded by a
    pixel. An area that is small relative to its box is valid: a person of whom only a hand and a foot are visible has a
    large box. The exceptions are two placeholders: exactly 1 in a box of more than 4 square pixels, and less than 1 in
    a box of more than 100 (an area as a fraction of the image). For a box computed from keypoints, the area only has to
    be less than the image's.

    The caller then compares the segmentation: an equal area confirms the annotated one.

    Args:
        areas (ndarray): (M,) square pixels.
        boxes (ndarray): (M, 4).
        has_own_box (ndarray): (M,) bool, False if the box is from :func:`boxes_from_keypoints`.
        sizes (ndarray): (M, 2) width and height of the images.

    Returns:
        ndarray: (M,) bool; False where the area is NaN.
    """
    width, height = boxes[:, 2], boxes[:, 3]
    with np.errstate(invalid="ignore", over="ignore"):
        box_areas = width * height
        too_large = np.where(has_own_box, areas > (width + 1) * (height + 1), areas >= sizes.prod(axis=1))
        placeholder = ((areas == 1) & (box_areas > 4)) | ((areas < 1) & (box_areas > 100))
        return ~np.isnan(areas) & ((areas <= 0) | np.isinf(areas) | too_large | placeholder)


def is_learnable(keypoints: np.ndarray, boxes: np.ndarray, iscrowd: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which annotations training can learn: no crowds, with a labelled keypoint and a pixel of the box in the image.

    Args:
        keypoints (ndarray): (M, K, 3).
        boxes (ndarray): (M, 4).
        iscrowd (ndarray): (M,) bool.
        sizes (ndarray): (M, 2) width and height of the images.

    Returns:
        ndarray: (M,) bool.
    """
    inside = (keypoints[..., 2] > 0) & ~outside_image(keypoints, sizes)
    return ~iscrowd & inside.any(axis=1) & ~less_than_a_pixel(boxes, sizes)


def is_learnable_person(person: dict[str, Any], record: dict[str, Any]) -> bool:
    """:func:`is_learnable` for an annotation of a dataset dict.

    Args:
        person (dict): in detectron2's format.
        record (dict): dict of its image, with ``width`` and ``height`` if known.

    Returns:
        bool
    """
    keypoints = person.get("keypoints")
    if person.get("iscrowd") or keypoints is None:
        return False
    box = BoxMode.convert(list(person["bbox"]), person["bbox_mode"], BoxMode.XYWH_ABS)
    size = [record.get("width", np.inf), record.get("height", np.inf)]
    return bool(
        is_learnable(
            np.reshape(keypoints, (1, -1, 3)).astype(float), np.array([box]), np.array([False]), np.array([size])
        )[0]
    )


def outside_image(keypoints: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M, K) bool: keypoints, labelled or not, outside every cell of the image's feature maps."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    return (x < 0) | (y < 0) | (x >= sizes[:, :1]) | (y >= sizes[:, 1:])


def leaves_image(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M,) bool: boxes that exceed the right or the bottom edge by more than a tenth of the image's side."""
    return (boxes[:, :2] + boxes[:, 2:] > sizes * 1.1).any(axis=1)


def less_than_a_pixel(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(M,) bool: boxes with less than a pixel of width or height inside the image."""
    low = np.maximum(boxes[:, :2], 0)
    high = np.fmin(boxes[:, :2] + boxes[:, 2:], sizes)
    return ((high - low) < 1).any(axis=1)
