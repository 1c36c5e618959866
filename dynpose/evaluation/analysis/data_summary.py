"""What a data set has: sizes, visibilities, people in an image, and whether its flip pairs are plausible.

Axes: P people, K keypoints.
"""

from __future__ import annotations

import numpy as np

from dynpose.data import KeypointSchema
from dynpose.data.flip_names import contradicted_pairs, flip_pairs_concern

from .arrays import PoseArrays

__all__ = ["data_summary", "flip_pair_faults"]

_SIZE_EDGES = (0, 16, 32, 64, 96, 128, 192, 256, 384)
_PEOPLE_EDGES = (0, 1, 2, 3, 4, 5, 6, 10, 20)
# Twins are as far from the top of the box as each other; the share of the box's height that is not
_HEIGHT_DIFFERENCE = 0.15
_MIN_PEOPLE = 20


def data_summary(arrays: PoseArrays, schema: KeypointSchema) -> dict:
    """Describe the annotation.

    Args:
        arrays: people; predictions are not read.
        schema: K keypoints.

    Returns:
        ``images``, ``images_without_people``, ``people`` (with labelled keypoints), ``crowds``, ``unlabelled_people``;
        ``sizes`` and ``people_per_image``, lists of ``from``, ``to`` (exclusive, None = open) and ``number``;
        ``keypoints``, for each keypoint its ``name`` and the shares, 0 to 100, ``visible``, ``occluded`` and
        ``not_labelled`` over all people; ``flip_pairs``, and ``flip_pair_faults``, see :func:`flip_pair_faults`.
    """
    counted = ~arrays.gt_ignored
    per_image = np.bincount(arrays.gt_images[counted], minlength=arrays.num_images)
    return {
        "images": arrays.num_images,
        "images_without_people": int((per_image == 0).sum()),
        "people": int(counted.sum()),
        "crowds": int(arrays.gt_iscrowd.sum()),
        "unlabelled_people": int((arrays.gt_ignored & ~arrays.gt_iscrowd).sum()),
        "sizes": _histogram(np.sqrt(arrays.gt_areas[counted]), _SIZE_EDGES),
        "people_per_image": _histogram(per_image, _PEOPLE_EDGES),
        "keypoints": _visibilities(arrays.gt_keypoints[counted, :, 2], schema.names),
        "flip_pairs": [list(pair) for pair in schema.flip_pairs],
        "flip_pair_faults": flip_pair_faults(arrays, schema),
    }


def flip_pair_faults(arrays: PoseArrays, schema: KeypointSchema) -> list[str]:
    """Doubts about the flip pairs, by the names of the keypoints and by where they are in the box.

    The two keypoints of a pair should be at the same height on average: the mean heights of 20 people with both
    labelled, relative to the box, may differ by 0.15.

    Args:
        arrays: people.
        schema: K keypoints.

    Returns:
        One sentence for each doubt; [] = none.
    """
    faults = [f"{contradiction}." for contradiction in contradicted_pairs(schema)]
    concern = flip_pairs_concern(schema)
    if concern and not faults:
        faults.append(concern[0].upper() + concern[1:] + ".")
    for left, right in schema.flip_pairs:
        difference = _height_difference(arrays, schema.names.index(left), schema.names.index(right))
        if difference is not None and difference > _HEIGHT_DIFFERENCE:
            faults.append(
                f"{left} / {right} is a flip pair, but one is {100 * difference:.0f} % of the box's height above the "
                f"other on average: they are no mirror images of each other."
            )
    return faults


def _height_difference(arrays: PoseArrays, left: int, right: int) -> float | None:
    chosen = ~arrays.gt_ignored & arrays.gt_labelled[:, left] & arrays.gt_labelled[:, right]
    chosen &= arrays.gt_boxes[:, 3] > 0
    if chosen.sum() < _MIN_PEOPLE:
        return None
    heights = arrays.gt_keypoints[chosen, :, 1] / arrays.gt_boxes[chosen, 3, None]
    return float(abs((heights[:, left] - heights[:, right]).mean()))


def _histogram(values: np.ndarray, edges: tuple[int, ...]) -> list[dict]:
    ends = (*edges[1:], np.inf)
    return [
        {
            "from": low,
            "to": None if high == np.inf else high,
            "number": int(((values >= low) & (values < high)).sum()),
        }
        for low, high in zip(edges, ends)
    ]


def _visibilities(visibility: np.ndarray, names: tuple[str, ...]) -> list[dict]:
    shares = {"visible": 2, "occluded": 1, "not_labelled": 0}
    total = max(1, len(visibility))
    return [
        {"name": name, **{share: 100 * float((visibility[:, k] == v).sum()) / total for share, v in shares.items()}}
        for k, name in enumerate(names)
    ]
