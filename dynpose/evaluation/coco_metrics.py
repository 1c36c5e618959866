"""COCO's detection metrics, computed by one of two libraries with identical results.

Axes of the arrays: T similarity thresholds, R recall thresholds, C categories, A area ranges, M limits on detections.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .ground_truth import GroundTruth

if TYPE_CHECKING:
    from pycocotools.cocoeval import Params

__all__ = ["BACKENDS", "METRICS", "box_of", "category_ap", "evaluate_detections", "nan_reasons", "summarize"]

BACKENDS = ("faster", "pycocotools")

METRICS: dict[str, dict[str, tuple[str, float | None, str]]] = {
    "keypoints": {
        "AP": ("precision", None, "all"),
        "AP50": ("precision", 0.5, "all"),
        "AP75": ("precision", 0.75, "all"),
        "APm": ("precision", None, "medium"),
        "APl": ("precision", None, "large"),
        "AR": ("recall", None, "all"),
        "AR50": ("recall", 0.5, "all"),
        "AR75": ("recall", 0.75, "all"),
        "ARm": ("recall", None, "medium"),
        "ARl": ("recall", None, "large"),
    },
    "keypoints_crowd": {
        "AP": ("precision", None, "all"),
        "AP50": ("precision", 0.5, "all"),
        "AP75": ("precision", 0.75, "all"),
        "AR": ("recall", None, "all"),
        "AR50": ("recall", 0.5, "all"),
        "AR75": ("recall", 0.75, "all"),
    },
    "bbox": {
        "AP": ("precision", None, "all"),
        "AP50": ("precision", 0.5, "all"),
        "AP75": ("precision", 0.75, "all"),
        "APs": ("precision", None, "small"),
        "APm": ("precision", None, "medium"),
        "APl": ("precision", None, "large"),
    },
}
"""Per type of evaluation: metric -> the averaged quantity, the similarity threshold (None: 0.50, 0.55, ... 0.95), and
the area range of the people that count. "keypoints_crowd" is CrowdPose's."""


def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Sequence[dict[str, Any]],
    *,
    iou_type: str,
    sigmas: Sequence[float],
    max_dets: int,
    backend: str,
    image_ids: Collection[int | str] | None = None,
) -> tuple[dict[str, Any], Params]:
    """Match detections with the ground truth and accumulate precision and recall.

    Args:
        ground_truth (GroundTruth): with annotations.
        detections (list[dict]): in COCO's results format: ``image_id``, ``category_id``, ``score``, ``keypoints`` (3K
            numbers, COCO's pixel indices) and optionally ``bbox`` (XYWH). Detections of equal score in an image are
            ranked in this order.
        iou_type (str): key of :data:`METRICS`.
        sigmas (Sequence[float]): K OKS sigmas; read for keypoints.
        max_dets (int): number of detections per category and image that count, highest scores first.
        backend (str): "faster" (faster-coco-eval) or "pycocotools".
        image_ids (Collection): the data set's ids of the images to evaluate; None = all.

    Returns:
        tuple[dict, Params]: ``precision`` (T, R, C, A, M) and ``recall`` (T, C, A, M), -1 where there is no ground
        truth; and the parameters of the evaluation, which give the values along the axes.
    """
    COCO, COCOeval = _pycocotools() if backend == "pycocotools" else _faster_coco_eval()
    of_keypoints = iou_type != "bbox"
    image_numbers = ground_truth.image_numbers
    images = [{"id": number} for number in image_numbers.values()]
    categories = [{"id": category_id} for category_id in ground_truth.category_ids]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        # Not by their loadRes: it fails on an empty list, and infers the type of all detections from the first.
        gt, dt = (
            _index(COCO, {"images": images, "categories": categories, "annotations": annotations})
            for annotations in (
                [dict(annotation) for annotation in ground_truth.annotations or ()],  # both libraries modify them
                [_annotation(detection, i, image_numbers) for i, detection in enumerate(detections, start=1)],
            )
        )
        # The matching is the same: CrowdPose's areas come with the ground truth. pycocotools has one keypoint type only
        evaluation = COCOeval(gt, dt, "keypoints" if of_keypoints and backend == "pycocotools" else iou_type)
        params = evaluation.params
        params.catIds = list(ground_truth.category_ids)
        params.imgIds = [image_numbers[i] for i in (ground_truth.image_ids if image_ids is None else image_ids)]
        params.maxDets = [max_dets]
        if of_keypoints:
            params.kpt_oks_sigmas = np.asarray(sigmas, dtype=np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval, params


def summarize(accumulated: dict[str, Any], params: Params, iou_type: str) -> dict[str, float]:
    """The metrics of an evaluation.

    Args:
        accumulated, params: from :func:`evaluate_detections`.
        iou_type (str): key of :data:`METRICS`.

    Returns:
        dict[str, float]: 0 to 100; NaN if no ground truth is in the area range.
    """
    return {
        name: _mean(accumulated[kind], params, threshold=threshold, area=area)
        for name, (kind, threshold, area) in METRICS[iou_type].items()
    }


def category_ap(accumulated: dict[str, Any], params: Params) -> dict[int, float]:
    """AP of each category.

    Args:
        accumulated, params: of :func:`evaluate_detections`.

    Returns:
        dict[int, float]: the data set's category id -> AP, 0 to 100; NaN for a category without ground truth.
    """
    precision = accumulated["precision"]
    return {
        int(category_id): _mean(precision[:, :, [i]], params, threshold=None, area="all")
        for i, category_id in enumerate(params.catIds)
    }


_AREAS = {
    "small": "has an area of at most 32² square pixels",
    "medium": "has an area from 32² to 96² square pixels",
    "large": "has an area of at least 96² square pixels",
}


def nan_reasons(metrics: dict[str, float], iou_type: str) -> dict[str, list[str]]:
    """The reasons why metrics of :func:`summarize` are NaN.

    Args:
        metrics (dict[str, float]): of all images, including "AP".
        iou_type (str): key of :data:`METRICS`.

    Returns:
        dict[str, list[str]]: reason, worded to follow "since" -> the metrics that are NaN for it.
    """
    who = "no person" if iou_type == "bbox" else "no person with labelled keypoints"
    reasons: dict[str, list[str]] = {}
    for name, (_, _, area) in METRICS[iou_type].items():
        if not math.isnan(metrics[name]):
            continue
        reason = f"the ground truth has {who}"
        if not math.isnan(metrics["AP"]):
            reason = f"{who} {_AREAS[area]}"
        reasons.setdefault(reason, []).append(name)
    return reasons


def _mean(values, params, *, threshold, area):
    """Mean over all but one area range and limit; ``values`` is (T, ..., A, M)."""
    if threshold is not None:
        values = values[np.isclose(params.iouThrs, threshold)]
    values = values[..., params.areaRngLbl.index(area), -1]
    values = values[values > -1]
    return float(values.mean()) * 100 if values.size else float("nan")


def box_of(detection: dict[str, Any]) -> list[float]:
    """The box of a detection in COCO's results format, XYWH; if missing, the box around its keypoints, as in COCO."""
    bbox = detection.get("bbox")
    if bbox is None:
        xs, ys = detection["keypoints"][0::3], detection["keypoints"][1::3]
        bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return bbox


def _annotation(detection, detection_id, image_numbers):
    """A detection in the form that ``loadRes`` produces, with an image id as in :class:`GroundTruth`.

    Its area is that of its box. It decides whether an unmatched detection is a false positive in APm and APl.
    """
    bbox = box_of(detection)
    return {
        **detection,
        "id": detection_id,
        "image_id": image_numbers[detection["image_id"]],
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
    }


def _index(COCO, dataset):
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _pycocotools():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _faster_coco_eval():
    from faster_coco_eval import COCO, COCOeval_faster

    return COCO, COCOeval_faster
