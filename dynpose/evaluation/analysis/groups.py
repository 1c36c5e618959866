"""AP of people by size, by number of labelled keypoints and by crowding.

Axes: P people, N predictions, T OKS thresholds.
"""

from __future__ import annotations

import numpy as np

from dynpose.evaluation.crowdpose import group_by_crowding

from .arrays import PoseArrays
from .matching import PoseMatcher, mean_of

__all__ = [
    "ap_by_crowd_index",
    "ap_by_overlap",
    "ap_by_size",
    "ap_by_visible_keypoints",
    "box_iou",
    "crowd_indices",
    "overlaps",
]

_SIZES = (("small", 0, 32), ("medium", 32, 96), ("large", 96, 1e5))
"""Name, and limits of the square root of the area; COCO's."""
_OVERLAPPING = 0.1
_OVERLAPS = (("0", 0, 0), ("1 or 2", 1, 2), ("3 or more", 3, np.inf))
# Ronchi and Perona's groups of COCO's 17 keypoints end at 5, 10, 15 and 17
_QUARTERS = (5 / 17, 10 / 17, 15 / 17, 1)


def ap_by_size(matcher: PoseMatcher) -> list[dict]:
    """AP and AR by the square root of the area: under 32 pixels, 32 to 96, and over 96.

    The rules are COCO's, which ignore unmatched predictions of another size: those of 32 to 96 and over 96 are APm and
    APl.

    Args:
        matcher: people and predictions.

    Returns:
        For each group ``group``, ``people``, ``ap`` and ``ar`` (0 to 100, NaN without people).
    """
    arrays = matcher.arrays
    areas = arrays.boxes[:, 2] * arrays.boxes[:, 3]
    rows = []
    for name, low, high in _SIZES:
        outside = (arrays.gt_areas < low**2) | (arrays.gt_areas > high**2)
        outside_predictions = (areas < low**2) | (areas > high**2)
        rows.append(_group(matcher, name, ~outside, outside_predictions))
    return rows


def ap_by_visible_keypoints(matcher: PoseMatcher) -> list[dict]:
    """AP and AR by the number of labelled keypoints; of COCO's 17 up to 5, 10, 15 and 17.

    People of the other groups are ignored, and every unmatched prediction counts, as in Ronchi and Perona, section 4.
    Therefore AP of a group with few people suffers more from false positives; AR does not.

    Args:
        matcher: people and predictions.

    Returns:
        See :func:`ap_by_size`.
    """
    number = matcher.arrays.gt_labelled.sum(axis=1)
    num_keypoints = len(matcher.arrays.sigmas)
    ends = sorted({max(1, round(share * num_keypoints)) for share in _QUARTERS})
    rows, start = [], 1
    for end in ends:
        name = f"{start} to {end}" if end > start else str(end)
        rows.append(_group(matcher, name, (number >= start) & (number <= end)))
        start = end + 1
    return rows


def ap_by_overlap(matcher: PoseMatcher) -> list[dict]:
    """AP and AR by the number of other people whose box overlaps with an IoU above 0.1 (section 4 of the paper).

    Args:
        matcher: people and predictions.

    Returns:
        See :func:`ap_by_size`; false positives count as in :func:`ap_by_visible_keypoints`.
    """
    number = overlaps(matcher.arrays)
    return [_group(matcher, name, (number >= low) & (number <= high)) for name, low, high in _OVERLAPS]


def ap_by_crowd_index(matcher: PoseMatcher, image_groups: dict[str, list[int]] | None = None) -> list[dict]:
    """AP and AR of the images with an easy (under 0.2), medium (under 0.8) and hard crowd index.

    The images of each group are evaluated separately. See :func:`crowd_indices`.

    Args:
        matcher: people and predictions.
        image_groups: name -> 0-based images, by the indices that the data set gives; None = by computed ones.

    Returns:
        See :func:`ap_by_size`, with the number of ``images``.
    """
    arrays = matcher.arrays
    rows = []
    for name, images in (image_groups or group_by_crowding(crowd_indices(arrays))).items():
        inside = np.zeros(arrays.num_images, dtype=bool)
        inside[images] = True
        rows.append({**_group(matcher, name, inside[arrays.gt_images], ~inside[arrays.images]), "images": len(images)})
    return rows


def crowd_indices(arrays: PoseArrays) -> dict[int, float]:
    """The crowd index of each image with labelled people: Li et al., "CrowdPose", CVPR 2019, equation 1.

    It is the mean over the people of the number of other people's labelled keypoints in a person's box, divided by the
    number of the person's own.

    Args:
        arrays: people; those who are ignored do not count.

    Returns:
        0-based image -> index.
    """
    counted = np.flatnonzero(~arrays.gt_ignored)
    counted = counted[np.argsort(arrays.gt_images[counted], kind="stable")]
    images, first, sizes = np.unique(arrays.gt_images[counted], return_index=True, return_counts=True)
    indices = {}
    for image, start, size in zip(images.tolist(), first.tolist(), sizes.tolist()):
        people = counted[start : start + size]
        x, y, w, h = (side[:, None, None] for side in arrays.gt_boxes[people].T)
        points = arrays.gt_keypoints[people][None]
        inside = (points[..., 0] >= x) & (points[..., 0] <= x + w) & (points[..., 1] >= y) & (points[..., 1] <= y + h)
        in_box = (inside & (points[..., 2] > 0)).sum(axis=2)
        own = np.diagonal(in_box)
        indices[image] = float(((in_box.sum(axis=1) - own) / np.maximum(own, 1)).mean())
    return indices


def overlaps(arrays: PoseArrays) -> np.ndarray:
    """(P,) number of other people of the group whose box overlaps with an IoU above 0.1."""
    number = np.zeros(len(arrays.gt_groups), dtype=np.int64)
    _, first, sizes = np.unique(arrays.gt_groups, return_index=True, return_counts=True)
    for start, size in zip(first[sizes > 1].tolist(), sizes[sizes > 1].tolist()):
        here = slice(start, start + size)
        iou = box_iou(arrays.gt_boxes[here], arrays.gt_boxes[here])
        np.fill_diagonal(iou, 0)
        number[here] = (iou > _OVERLAPPING).sum(axis=1)
    return number


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes (D, 4) and (P, 4), XYWH -> (D, P)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    total = np.prod(boxes[:, 2:], axis=1)[:, None] + np.prod(others[:, 2:], axis=1)[None] - shared
    return shared / np.maximum(total, np.spacing(1))


def _group(matcher: PoseMatcher, name: str, members: np.ndarray, outside_predictions: np.ndarray | None = None) -> dict:
    """AP and AR of some people (P,); predictions (N,) outside the group are ignored where they are not matched."""
    gt_ignored = matcher.arrays.gt_ignored | ~members
    matches = matcher.match(gt_ignored=gt_ignored)
    ignored = matches.ignored
    if outside_predictions is not None:
        ignored = ignored | ((matches.people < 0) & outside_predictions[:, None])
    precision, recall = matcher.precision(matches, gt_ignored=gt_ignored, ignored=ignored)
    return {"group": name, "people": int((~gt_ignored).sum()), "ap": mean_of(precision), "ar": mean_of(recall)}
