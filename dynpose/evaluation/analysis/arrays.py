"""The people and predictions of a data set as arrays, grouped by image and class.

Axes: P people, N predictions, K keypoints, G groups (one for each class and image). Coordinates are COCO's pixel
indices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dynpose.evaluation.coco_metrics import box_of
from dynpose.evaluation.ground_truth import GroundTruth

__all__ = ["PoseArrays", "pose_arrays"]


@dataclasses.dataclass(frozen=True)
class PoseArrays:
    """People and predictions, sorted by group; the predictions of a group by descending score.

    Attributes:
        sigmas: (K,) OKS sigmas.
        num_images: number of images I; group ``c * I + i`` holds class ``c`` of image ``i``.
        num_classes: number of classes C.
        gt_groups: (P,) group of each person.
        gt_keypoints: (P, K, 3) x, y, visibility.
        gt_boxes: (P, 4) XYWH.
        gt_areas: (P,) square pixels.
        gt_iscrowd: (P,) bool.
        gt_ignored: (P,) bool, crowds and people without labelled keypoints.
        groups: (N,) group of each prediction.
        keypoints: (N, K, 3) x, y, confidence.
        boxes: (N, 4) XYWH; without a predicted box, the box around the keypoints.
        scores: (N,).
        indices: (N,) index of each prediction in the list that it comes from.
    """

    sigmas: np.ndarray
    num_images: int
    num_classes: int
    gt_groups: np.ndarray
    gt_keypoints: np.ndarray
    gt_boxes: np.ndarray
    gt_areas: np.ndarray
    gt_iscrowd: np.ndarray
    gt_ignored: np.ndarray
    groups: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    indices: np.ndarray

    @property
    def gt_labelled(self) -> np.ndarray:
        """(P, K) bool: keypoints with visibility 1 or 2."""
        return self.gt_keypoints[..., 2] > 0

    @property
    def images(self) -> np.ndarray:
        """(N,) 0-based image of each prediction."""
        return self.groups % self.num_images

    @property
    def gt_images(self) -> np.ndarray:
        """(P,) 0-based image of each person."""
        return self.gt_groups % self.num_images

    def with_predictions(
        self,
        *,
        keypoints: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        scores: np.ndarray | None = None,
        kept: np.ndarray | None = None,
    ) -> PoseArrays:
        """The same people with changed predictions.

        Args:
            keypoints: (N, K, 3) instead of the predicted ones.
            boxes: (N, 4) XYWH instead of the predicted ones.
            scores: (N,) instead of the predicted ones.
            kept: (N,) bool, the predictions to keep.
        """
        changed = dataclasses.replace(
            self,
            keypoints=self.keypoints if keypoints is None else keypoints,
            boxes=self.boxes if boxes is None else boxes,
            scores=self.scores if scores is None else scores,
        )
        order = np.lexsort((-changed.scores, changed.groups))
        return changed._select(order if kept is None else order[kept[order]])

    def _select(self, order: np.ndarray) -> PoseArrays:
        columns = {name: getattr(self, name)[order] for name in _OF_PREDICTIONS}
        return dataclasses.replace(self, **columns)


_OF_PREDICTIONS = ("groups", "keypoints", "boxes", "scores", "indices")


def pose_arrays(
    ground_truth: GroundTruth, detections: Sequence[dict], sigmas: Sequence[float], *, max_dets: int
) -> PoseArrays:
    """Convert annotations and predictions to arrays.

    Args:
        ground_truth: with annotations.
        detections: in COCO's results format, see
            :func:`~dynpose.evaluation.coco_metrics.evaluate_detections`.
        sigmas: K OKS sigmas.
        max_dets: predictions of a class in an image that count, highest scores first.
    """
    annotations = ground_truth.annotations or []
    num_keypoints, num_images = len(sigmas), len(ground_truth.image_ids)
    class_of = {category_id: i for i, category_id in enumerate(ground_truth.category_ids)}
    gt_groups = np.array(
        [class_of[person["category_id"]] * num_images + person["image_id"] - 1 for person in annotations], np.int64
    )
    numbers = ground_truth.image_numbers
    groups = np.array(
        [class_of[each["category_id"]] * num_images + numbers[each["image_id"]] - 1 for each in detections], np.int64
    )
    order = np.argsort(gt_groups, kind="stable")
    keypoints = _column(annotations, "keypoints", (-1, num_keypoints, 3))[order]
    iscrowd = _column(annotations, "iscrowd", (-1,))[order] > 0
    arrays = PoseArrays(
        sigmas=np.asarray(sigmas, dtype=np.float64),
        num_images=num_images,
        num_classes=len(ground_truth.category_ids),
        gt_groups=gt_groups[order],
        gt_keypoints=keypoints,
        gt_boxes=_column(annotations, "bbox", (-1, 4))[order],
        gt_areas=_column(annotations, "area", (-1,))[order],
        gt_iscrowd=iscrowd,
        gt_ignored=iscrowd | ~(keypoints[..., 2] > 0).any(axis=1),
        groups=groups,
        keypoints=_column(detections, "keypoints", (-1, num_keypoints, 3)),
        boxes=np.array([box_of(each) for each in detections], dtype=np.float64).reshape(-1, 4),
        scores=_column(detections, "score", (-1,)),
        indices=np.arange(len(detections)),
    )
    arrays = arrays.with_predictions()
    # the rank of each prediction in its group
    rank = np.arange(len(arrays.groups)) - np.searchsorted(arrays.groups, arrays.groups)
    return arrays.with_predictions(kept=rank < max_dets)


def _column(items: Sequence[dict], key: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.array([item[key] for item in items], dtype=np.float64).reshape(shape)
