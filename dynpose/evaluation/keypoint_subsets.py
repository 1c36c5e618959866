"""Evaluation of subsets of the keypoints: parts of the body, and the keypoints of a model with another schema.

The rules are those of COCO-WholeBody's evaluation (Jin et al., ECCV 2020; its tool is xtcocotools' COCOeval with
``keypoints_face`` and the like): a person counts for a part if it has labelled keypoints in the part, OKS is the mean
over these with their sigmas, and the area is that of the whole person.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from dynpose.data import DatasetError, KeypointSchema
from dynpose.data.schema import match_keypoints

from .coco_metrics import box_of
from .ground_truth import GroundTruth

__all__ = [
    "common_keypoints",
    "detections_of_keypoints",
    "detections_of_part",
    "ground_truth_of_keypoints",
]


def common_keypoints(schema: KeypointSchema, model_schema: KeypointSchema, dataset_name: str) -> tuple[int | None, ...]:
    """Match the keypoints of a data set with those of a model, by name.

    Args:
        schema (KeypointSchema): of the data set.
        model_schema (KeypointSchema): of the model.
        dataset_name (str): for messages.

    Returns:
        tuple[int | None]: for each keypoint of the data set the model's index, or None if the model lacks that name.

    Raises:
        DatasetError: no keypoint is common to both.
    """
    matched = match_keypoints(schema.names, model_schema.names)
    if all(index is None for index in matched):
        raise DatasetError(
            f"data set {dataset_name!r} and the model have no keypoint in common: it has {', '.join(schema.names)}, "
            f"the model {', '.join(model_schema.names)}; evaluate on a data set that shares some of their names"
        )
    return matched


def ground_truth_of_keypoints(ground_truth: GroundTruth, indices: Sequence[int]) -> GroundTruth:
    """Keep some of the keypoints. A person with none of them labelled does not count, as without keypoints in COCO.

    Args:
        ground_truth (GroundTruth): with K keypoints.
        indices (Sequence[int]): those to keep.

    Returns:
        GroundTruth: with ``len(indices)`` keypoints and recounted ``num_keypoints``.
    """
    annotations = []
    for annotation in ground_truth.annotations or ():
        keypoints = _select(annotation["keypoints"], indices)
        num_labelled = sum(v > 0 for v in keypoints[2::3])
        annotations.append({**annotation, "keypoints": keypoints, "num_keypoints": num_labelled})
    return dataclasses.replace(ground_truth, annotations=annotations)


def detections_of_keypoints(detections: list[dict[str, Any]], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Keep some of the keypoints.

    Args:
        detections (list[dict]): in COCO's results format, with K keypoints.
        indices (Sequence[int]): those to keep.

    Returns:
        list[dict]
    """
    return [{**detection, "keypoints": _select(detection["keypoints"], indices)} for detection in detections]


def detections_of_part(detections: list[dict[str, Any]], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Keep the keypoints of a part, and the box of the whole person.

    Args:
        detections, indices: see :func:`detections_of_keypoints`.

    Returns:
        list[dict]: without detections whose confidences in the part are all 0: they do not show it.
    """
    parts = detections_of_keypoints([{**detection, "bbox": box_of(detection)} for detection in detections], indices)
    return [part for part in parts if any(confidence > 0 for confidence in part["keypoints"][2::3])]


def _select(keypoints, indices):
    """Select keypoints from 3K numbers."""
    return [number for i in indices for number in keypoints[3 * i : 3 * i + 3]]
