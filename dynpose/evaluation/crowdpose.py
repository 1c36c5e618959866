"""The differences of CrowdPose's evaluation from COCO's.

The official tool, CrowdPose-api, does not run with current numpy. The rules below are those of its code.
"""

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["AREA_OF_BOX", "group_by_crowding"]

ImageId = TypeVar("ImageId", int, int | str)


AREA_OF_BOX = 0.53
"""A person's area in OKS as a fraction of the box area, since CrowdPose has no segments."""

# An image whose crowd index equals a bound is in the group above it
_MEDIUM_FROM, _HARD_FROM = 0.2, 0.8


def group_by_crowding(crowd_indices: Mapping[ImageId, float]) -> dict[str, list[ImageId]]:
    """Group the images for AP easy, medium and hard.

    Args:
        crowd_indices (dict): image id -> crowd index.

    Returns:
        dict[str, list]: "easy" (crowd index below 0.2), "medium" (0.2 to below 0.8) and "hard" -> image ids.

    Example::

        >>> group_by_crowding({1: 0.1, 2: 0.2, 3: 0.8})
        {'easy': [1], 'medium': [2], 'hard': [3]}
    """
    groups: dict[str, list[ImageId]] = {"easy": [], "medium": [], "hard": []}
    for image_id, index in crowd_indices.items():
        groups["easy" if index < _MEDIUM_FROM else "medium" if index < _HARD_FROM else "hard"].append(image_id)
    return groups
