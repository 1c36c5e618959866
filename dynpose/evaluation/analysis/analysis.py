"""The analysis of a data set's predictions, as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dynpose.data import KeypointSchema
from dynpose.evaluation.coco_metrics import category_ap, evaluate_detections, summarize
from dynpose.evaluation.ground_truth import GroundTruth

from .arrays import pose_arrays
from .calibration import calibration
from .data_summary import data_summary
from .error_types import ERRORS, KEYPOINT_ERRORS, LocalizationErrors, ap_after_corrections, find_localization_errors
from .findings import find_faults, verdict
from .groups import ap_by_crowd_index, ap_by_overlap, ap_by_size, ap_by_visible_keypoints
from .keypoint_errors import errors_of_keypoints
from .matching import PoseMatcher, mean_of
from .worst_images import worst_images

__all__ = ["analyse_predictions"]


def analyse_predictions(
    ground_truth: GroundTruth,
    detections: Sequence[dict],
    schema: KeypointSchema,
    *,
    max_dets: int = 20,
    image_sizes: dict | None = None,
    num_worst: int = 30,
) -> dict:
    """Analyse predictions against their annotation.

    AP, AR and the precision-recall curves are those of :class:`~dynpose.evaluation.PoseEvaluator`.

    Args:
        ground_truth: with annotations.
        detections: in COCO's results format, of images and categories of the ground truth, all numbers finite.
        schema: K keypoints, with the OKS sigmas of the evaluation.
        max_dets: predictions of a class in an image that count, highest scores first.
        image_sizes: the data set's image id -> (width, height), pixels, where known.
        num_worst: number of worst images.

    Returns:
        dict: plain numbers, NaN where a value is not defined; docs/report.md describes the keys.

    Example::

        >>> analysis = analyse_predictions(read_ground_truth("hands_val", 21), detections, schema)
        >>> analysis["verdict"]["headline"]
    """
    protocol = "keypoints_crowd" if ground_truth.protocol == "crowdpose" else "keypoints"
    accumulated, params = evaluate_detections(
        ground_truth, detections, iou_type=protocol, sigmas=schema.sigmas, max_dets=max_dets, backend="faster"
    )
    metrics = summarize(accumulated, params, protocol)
    ap = metrics["AP"]
    matcher = PoseMatcher(pose_arrays(ground_truth, detections, schema.sigmas, max_dets=max_dets))
    localization = find_localization_errors(matcher, schema.flip_indices)
    alone, cumulative = ap_after_corrections(matcher, localization)
    calibrated = calibration(matcher)
    data = data_summary(matcher.arrays, schema)
    sizes, ids = image_sizes or {}, ground_truth.image_ids
    worst = worst_images(matcher, num_worst)
    findings = find_faults(
        matcher,
        schema,
        flip_pair_faults=data["flip_pair_faults"],
        image_sizes=np.array([sizes.get(i, (np.nan, np.nan)) for i in ids]).reshape(-1, 2),
    )
    return {
        "verdict": {
            "headline": verdict(findings, ap, alone, len(detections)),
            "findings": [dataclasses.asdict(finding) for finding in findings],
        },
        "metrics": metrics,
        "ap_of_classes": {str(key): value for key, value in category_ap(accumulated, params).items()},
        "max_dets": max_dets,
        "precision_recall": _curves(accumulated, params),
        "groups": {
            "size": ap_by_size(matcher),
            "labelled_keypoints": ap_by_visible_keypoints(matcher),
            "overlapping_people": ap_by_overlap(matcher),
            "crowd_index": ap_by_crowd_index(matcher, _image_groups(ground_truth)),
        },
        "keypoints": errors_of_keypoints(matcher.arrays, localization, schema.names),
        "errors": _errors(ap, alone, cumulative, localization),
        "calibration": calibrated,
        "worst_images": {**worst, "images": [{**row, "image": ids[row["image"]]} for row in worst["images"]]},
        "data": data,
    }


def _image_groups(ground_truth: GroundTruth) -> dict | None:
    """Group -> 0-based images, where the data set gives crowd indices."""
    if not ground_truth.image_groups:
        return None
    numbers = ground_truth.image_numbers
    return {name: [numbers[i] - 1 for i in members] for name, members in ground_truth.image_groups.items()}


def _curves(accumulated: dict, params) -> dict:
    """The precision-recall curve of each OKS threshold, over all classes with people."""
    precision = accumulated["precision"][..., params.areaRngLbl.index("all"), -1]
    with_people = (precision > -1).all(axis=(0, 1))
    curves = []
    for threshold, values in zip(params.iouThrs.tolist(), precision[..., with_people]):
        of_threshold = values.mean(axis=1) if values.size else np.full(len(values), np.nan)
        curves.append({"oks": round(threshold, 2), "ap": mean_of(values), "precision": of_threshold.tolist()})
    return {"recall": params.recThrs.tolist(), "curves": curves}


def _errors(ap: float, alone: dict[str, float], cumulative: dict[str, float], localization: LocalizationErrors) -> dict:
    labelled = int(localization.labelled.sum())
    counts = {"good": localization.good, **localization.errors}
    return {
        "matched_people": len(localization.people),
        "labelled_keypoints": labelled,
        "keypoints": {name: int(counts[name].sum()) for name in ("good", *KEYPOINT_ERRORS)},
        "ap": ap,
        "corrections": [
            {"error": error, "ap_alone": alone[error], "gain": alone[error] - ap, "ap_cumulative": cumulative[error]}
            for error in ERRORS
        ],
    }
