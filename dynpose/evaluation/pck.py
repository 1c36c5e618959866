"""PCK, AUC and NME: keypoint errors in more intuitive units than OKS.

PCK at ``a``: the share of labelled keypoints that are predicted within ``a`` times the longer side of the person's box
(Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", TPAMI 2013). PCKh: within half the
head segment instead (Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", CVPR
2014). AUC: the mean of PCK over all ``a`` from 0 to 0.5. NME: the mean error of the labelled keypoints of detected
people, relative to the distance of the outer corners of the eyes in faces with 300W's or WFLW's landmarks (Sagonas et
al., ICCVW 2013; Wu et al., CVPR 2018), else to the square root of the box's area (Bulat and Tzimiropoulos, ICCV 2017).

Predictions are matched to people as in the multi-person evaluation on MPII (Pishchulin et al., "DeepCut", CVPR 2016),
with OKS instead of PCKh: greedily by descending similarity, each prediction and person at most once.

Axes: N predictions, P people, K keypoints. Coordinates and distances are pixels.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dynpose.layers.oks_nms import pairwise_oks

from .ground_truth import GroundTruth

__all__ = ["PCK_THRESHOLDS", "PCKResults", "evaluate_pck", "pck_metric_names"]

PCK_THRESHOLDS = (0.05, 0.1, 0.2)
"""Relative to the longer side of the box."""
_AUC_LIMIT = 0.5
_PCKH = "PCKh@0.5"
_PCKH_THRESHOLD = 0.5
_HEAD_SEGMENT = ("headtop", "upperneck")
# 0-based indices of the outer eye corners, by number of landmarks: 68 for 300W, 98 for WFLW
_EYE_CORNERS = {68: (36, 45), 98: (60, 72)}


@dataclass(frozen=True)
class PCKResults:
    """PCK, AUC and NME of one data set.

    Attributes:
        metrics (dict[str, float]): metric -> 0 to 100 (NME: percent of its unit), over the labelled keypoints of all
            people; NaN if there are none.
        per_keypoint (dict[str, ndarray]): metric -> (K,), the same for each keypoint.
        num_people (int): people that count: no crowds, with labelled keypoints and a non-empty box.
        num_found (int): those matched with a prediction.
        nme_unit (str): the normalising distance of NME.
    """

    metrics: dict[str, float]
    per_keypoint: dict[str, np.ndarray]
    num_people: int
    num_found: int
    nme_unit: str

    def of_keypoints(self, names: Sequence[str]) -> dict[str, float]:
        """dict[str, float]: "<metric>-<keypoint>" -> its value."""
        return {
            f"{metric}-{name}": float(value)
            for metric, values in self.per_keypoint.items()
            for name, value in zip(names, values)
        }


def pck_metric_names(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics of :func:`evaluate_pck`.

    Args:
        names (Sequence[str]): K keypoint names.

    Returns:
        tuple[str]
    """
    own = (_PCKH,) if _head_segment(names) else ()
    return (*(f"PCK@{threshold:g}" for threshold in PCK_THRESHOLDS), *own, "AUC", "NME")


def evaluate_pck(
    ground_truth: GroundTruth,
    detections: list[dict[str, Any]],
    *,
    names: Sequence[str],
    sigmas: Sequence[float],
    max_dets: int,
    image_ids: Collection[int | str] | None = None,
) -> PCKResults:
    """Compare predictions with labelled keypoints, one by one.

    The ``max_dets`` best predictions of a class in an image are matched with its people by descending OKS above 0. A
    match needs at least one labelled keypoint predicted within half the longer side of the person's box; other pairs
    contribute to neither PCK nor AUC. All keypoints of an unmatched person are wrong; NME excludes them. False
    positives are not penalised; AP measures them.

    Args:
        ground_truth (GroundTruth): with annotations.
        detections (list[dict]): in COCO's results format.
        names (Sequence[str]): K keypoint names.
        sigmas (Sequence[float]): K OKS sigmas.
        max_dets (int): number of predictions per class and image that count, highest scores first.
        image_ids (Collection): the data set's ids of the images to evaluate; None = all.

    Returns:
        PCKResults
    """
    image_ids = ground_truth.image_ids if image_ids is None else image_ids
    numbers = {ground_truth.image_numbers[image_id] for image_id in image_ids}
    people = [person for person in ground_truth.annotations or () if person["image_id"] in numbers and _counts(person)]
    keypoints = np.array([person["keypoints"] for person in people], dtype=np.float64).reshape(-1, len(names), 3)
    boxes = np.array([person["bbox"] for person in people], dtype=np.float64).reshape(-1, 4)
    areas = np.array([person["area"] for person in people], dtype=np.float64)
    sides = boxes[:, 2:].max(axis=1)

    distances = np.full(keypoints.shape[:2], np.inf)
    of_people = defaultdict(list)
    for i, person in enumerate(people):
        of_people[person["image_id"], person["category_id"]].append(i)
    for group, here in _best_of_groups(detections, ground_truth.image_numbers, max_dets).items():
        theirs = of_people.get(group)
        if theirs:
            poses = np.array([detection["keypoints"] for detection in here], dtype=np.float64)
            poses = poses.reshape(-1, len(names), 3)
            matched, found = match_people(poses, keypoints[theirs], areas[theirs], sides[theirs], sigmas)
            distances[np.array(theirs)[found]] = _distances(poses[matched], keypoints[theirs][found])
    return _summarize(distances, keypoints, boxes, names)


def match_people(
    poses: np.ndarray, people: np.ndarray, areas: np.ndarray, sides: np.ndarray, sigmas: Sequence[float]
) -> tuple[list[int], list[int]]:
    """Match predictions with people, by descending OKS.

    Args:
        poses (ndarray): (N, K, 3) predictions, best first.
        people (ndarray): (P, K, 3) x, y, visibility.
        areas (ndarray): (P,) square pixels.
        sides (ndarray): (P,) longer sides of the boxes.
        sigmas (Sequence[float]): K.

    Returns:
        tuple[list[int], list[int]]: the indices of the matched predictions and people.
    """
    labelled = people[..., 2] > 0
    oks = pairwise_oks(
        torch.from_numpy(poses),
        torch.from_numpy(people),
        torch.from_numpy(areas),
        sigmas,
        visible=torch.from_numpy(labelled),
    ).numpy()
    near = _distances(poses[:, None], people[None]) <= _AUC_LIMIT * sides[:, None]
    possible = (oks > 0) & (near & labelled).any(axis=2)
    matched, found = [], []
    # ties: the better prediction first
    for i in np.argsort(-oks, axis=None, kind="stable").tolist():
        pose, person = divmod(i, len(people))
        if possible[pose, person] and pose not in matched and person not in found:
            matched.append(pose)
            found.append(person)
    return matched, found


def _counts(person):
    return not person["iscrowd"] and person["num_keypoints"] > 0 and min(person["bbox"][2:]) > 0


def _best_of_groups(detections, image_numbers, max_dets):
    """(image number, category) -> its ``max_dets`` best detections, best first."""
    groups = defaultdict(list)
    for detection in detections:
        groups[image_numbers[detection["image_id"]], detection["category_id"]].append(detection)
    return {group: sorted(here, key=lambda detection: -detection["score"])[:max_dets] for group, here in groups.items()}


def _distances(poses, people):
    """Distances of keypoints (..., K, 2 or 3)."""
    return np.linalg.norm(poses[..., :2] - people[..., :2], axis=-1)


def _summarize(distances, keypoints, boxes, names):
    """The metrics from distances (P, K), infinite for unmatched people."""
    labelled = keypoints[..., 2] > 0
    relative = distances / boxes[:, 2:].max(axis=1)[:, None]
    values = {f"PCK@{threshold:g}": (relative <= threshold, labelled) for threshold in PCK_THRESHOLDS}
    head = _head_segment(names)
    if head:
        lengths, has_length = _segment(keypoints, head)
        values[_PCKH] = (distances <= _PCKH_THRESHOLD * lengths[:, None], labelled & has_length[:, None])
    # PCK(a) is a step of height 1 from a = relative on: its mean over 0 to the limit is exact
    values["AUC"] = (np.clip(1 - relative / _AUC_LIMIT, 0, None), labelled)

    found = np.isfinite(distances).all(axis=1)
    corners = _EYE_CORNERS.get(len(names)) if _are_numbered(names) else None
    if corners:
        units, has_unit = _segment(keypoints, corners)
        nme_unit = f"the distance of the outer corners of the eyes, {names[corners[0]]} and {names[corners[1]]}"
    else:
        units, has_unit = np.sqrt(boxes[:, 2] * boxes[:, 3]), np.ones(len(boxes), dtype=bool)
        nme_unit = "the square root of the box's area"
    chosen = found & has_unit
    values["NME"] = (np.where(found[:, None], distances, 0) / units[:, None], labelled & chosen[:, None])

    means = {name: _means(*values[name]) for name in pck_metric_names(names)}
    return PCKResults(
        metrics={name: overall for name, (overall, _) in means.items()},
        per_keypoint={name: each for name, (_, each) in means.items()},
        num_people=len(keypoints),
        num_found=int(found.sum()),
        nme_unit=nme_unit,
    )


def _means(values, counted):
    """Means of the counted (P, K) values in percent: over all, and (K,) per keypoint."""
    sums, counts = np.where(counted, values, 0).sum(axis=0), counted.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return float(np.divide(100 * sums.sum(), counts.sum())), 100 * sums / counts


def _segment(keypoints, ends):
    """Lengths (P,) between two keypoints, 1 if unknown, and a mask of the known ones."""
    a, b = keypoints[:, ends[0]], keypoints[:, ends[1]]
    lengths = _distances(a, b)
    known = (a[:, 2] > 0) & (b[:, 2] > 0) & (lengths > 0)
    return np.where(known, lengths, 1), known


def _head_segment(names):
    """The 0-based ends of MPII's head segment, or None."""
    words = [re.sub(r"[^a-z]", "", name.lower()) for name in names]
    return tuple(words.index(end) for end in _HEAD_SEGMENT) if set(_HEAD_SEGMENT) <= set(words) else None


def _are_numbered(names):
    """Whether names are numbered: "1", "2", ... or "landmark_0", "landmark_1", ... ."""
    parts = [re.fullmatch(r"(\D*)(\d+)", name) for name in names]
    if not all(parts):
        return False
    numbers = [int(part[2]) for part in parts]
    return len({part[1] for part in parts}) == 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
