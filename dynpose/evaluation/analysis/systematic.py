"""Systematic faults of predictions: exchanged keypoints, offsets, scales, duplicates, background.

A fault is found by estimating a correction that is the same for all predictions, and by the AP that it gives.

Axes: P people, N predictions, K keypoints, M pairs of a prediction and a person, I images, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from .arrays import PoseArrays
from .groups import box_iou
from .matching import PoseMatcher, keypoint_similarity, mean_of

__all__ = [
    "Exchange",
    "Offset",
    "PersonPairs",
    "Scale",
    "ap_of",
    "ap_without_people",
    "background_predictions",
    "duplicate_predictions",
    "find_exchange",
    "find_offset",
    "find_scale",
    "keypoint_confusions",
    "missed_people",
    "pair_by_box",
    "placed_at",
]

_MIN_IOU = 0.3
_BACKGROUND_IOU, _BACKGROUND_OKS = 0.1, 0.1
_NEAR = 0.5
_SAME_PERSON = 0.5
# Share of the people that an exchange must explain; less is a confusion
_MOST = 0.7
# Pixels from which an offset is a fault, and relative deviations from which a scale is
_MIN_OFFSET, _MIN_SCALE = 0.4, 0.005
# Relative spread of the factors of images from which they differ
_SPREAD = 0.02
# Standard errors that an estimate must differ by
_SIGNIFICANT = 4
# People, and images, from which these estimates have standard errors
_MIN_PEOPLE, _MIN_IMAGES = 10, 3
# The residual of a scaled pose, relative to the square root of the person's area
_MAX_RESIDUAL = 0.15
_CHUNK = 2_000_000


class PersonPairs(NamedTuple):
    """Predictions and people paired by their boxes, which exchanged or shifted keypoints do not prevent."""

    predictions: np.ndarray
    """(M,)"""
    people: np.ndarray
    """(M,)"""


class Exchange(NamedTuple):
    """Keypoints that are predicted under the name of others."""

    order: np.ndarray
    """(K,) the predicted keypoint that fits each annotated one"""
    ap: float
    """AP with the predicted keypoints in this order, 0 to 100"""


class Offset(NamedTuple):
    """The mean error of all keypoints, pixels."""

    dx: float
    dy: float
    ap: float
    """AP without it, 0 to 100"""


class Scale(NamedTuple):
    """Factors between the predicted and the annotated coordinates."""

    x: float
    y: float
    """The median over the images"""
    varies: bool
    """Whether the factors differ between images"""
    factors: np.ndarray
    """(N, 2) of each prediction"""
    ap: float
    """AP with the coordinates divided by the factors, 0 to 100"""


def ap_of(arrays: PoseArrays) -> float:
    """AP of predictions, 0 to 100; NaN without people."""
    matcher = PoseMatcher(arrays)
    return mean_of(matcher.precision(matcher.match())[0])


def ap_without_people(matcher: PoseMatcher, ignored: np.ndarray) -> float:
    """AP with some people (P,) ignored, 0 to 100."""
    gt_ignored = matcher.arrays.gt_ignored | ignored
    return mean_of(matcher.precision(matcher.match(gt_ignored=gt_ignored), gt_ignored=gt_ignored)[0])


def placed_at(arrays: PoseArrays, points: np.ndarray) -> PoseArrays:
    """Predictions with other coordinates (N, K, 2) and the boxes around them."""
    keypoints = arrays.keypoints.copy()
    keypoints[..., :2] = points
    low, high = points.min(axis=1), points.max(axis=1)
    return arrays.with_predictions(keypoints=keypoints, boxes=np.concatenate([low, high - low], axis=1))


def pair_by_box(matcher: PoseMatcher) -> PersonPairs:
    """Pair each person with a prediction whose box has an IoU of at least 0.3, the one with the highest IoU plus OKS.

    Args:
        matcher: people and predictions; ignored people have no pair.
    """
    arrays = matcher.arrays
    predictions, people = [], []
    for rows, persons in _groups_of(arrays):
        iou = box_iou(arrays.boxes[rows], arrays.gt_boxes[persons])
        likeness = np.where(iou >= _MIN_IOU, iou + matcher.oks_of_group(rows), -1)
        best = likeness.argmax(axis=0)
        chosen = (likeness[best, np.arange(len(persons))] > 0) & ~arrays.gt_ignored[persons]
        predictions.append(rows[best[chosen]])
        people.append(persons[chosen])
    return PersonPairs(*(np.concatenate(each) if each else np.zeros(0, np.int64) for each in (predictions, people)))


def find_exchange(arrays: PoseArrays, pairs: PersonPairs, flip_indices: np.ndarray) -> Exchange | None:
    """Find keypoints that are predicted in exchanged places, such as left and right.

    The assignment of predicted to annotated keypoints with the highest mean similarity, and the exchange of all flip
    pairs, are evaluated, if they bring the keypoints of 70 % of the people nearer; the one with the higher AP is
    returned.

    Args:
        arrays: people and predictions.
        pairs: of :func:`pair_by_box`.
        flip_indices: (K,), see ``KeypointSchema.flip_indices``.

    Returns:
        None if the order is right as it is.
    """
    similarity, *_ = _similarity_of_keypoints(arrays, pairs)
    identity = np.arange(len(flip_indices))
    orders = [linear_sum_assignment(similarity.T, maximize=True)[1], np.asarray(flip_indices)]
    found: Exchange | None = None
    for order in orders:
        if found is not None and np.array_equal(order, found.order):
            continue
        if np.array_equal(order, identity) or not _explains_most_people(arrays, pairs, order):
            continue
        ap = ap_of(arrays.with_predictions(keypoints=arrays.keypoints[:, order]))
        if found is None or ap > found.ap:
            found = Exchange(order, ap)
    return found


def keypoint_confusions(arrays: PoseArrays, pairs: PersonPairs) -> tuple[np.ndarray, np.ndarray]:
    """How often a predicted keypoint is at the place of another.

    Args:
        arrays: people and predictions.
        pairs: of :func:`pair_by_box`.

    Returns:
        (K, K) shares: predicted keypoint i (row) has a similarity of at least 0.5 to the annotated keypoint j, and less
        to its own; relative to the people with both labelled, 0 if these are fewer than 10. The diagonal is 0. And
        (K,) shares of the people in whom keypoint i has a similarity of at least 0.5 to its own.
    """
    _, confused, near = _similarity_of_keypoints(arrays, pairs)
    return confused, near


def find_offset(arrays: PoseArrays, pairs: PersonPairs) -> Offset | None:
    """Find a constant offset of all keypoints of at least 0.4 pixels.

    Args:
        arrays: people and predictions.
        pairs: of :func:`pair_by_box`.

    Returns:
        None if there is none, it is within four standard errors of 0, or there are fewer than 10 pairs.
    """
    labelled = arrays.gt_labelled[pairs.people]
    errors = arrays.keypoints[pairs.predictions, :, :2] - arrays.gt_keypoints[pairs.people, :, :2]
    if len(errors) < _MIN_PEOPLE:
        return None
    # the keypoints of a person are not independent: one error each, to which exact keypoints contribute most
    weights = labelled / arrays.sigmas**2
    of_people = (errors * weights[..., None]).sum(axis=1) / weights.sum(axis=1)[:, None]
    offset, standard_error = _robust_mean(of_people, np.sqrt(arrays.gt_areas[pairs.people] + np.spacing(1)))
    # both axes together
    significance = np.hypot(*(offset / np.maximum(standard_error, 1e-9)))
    if np.hypot(*offset) < _MIN_OFFSET or significance < _SIGNIFICANT:
        return None
    ap = ap_of(placed_at(arrays, arrays.keypoints[..., :2] - offset))
    return Offset(float(offset[0]), float(offset[1]), ap)


def find_scale(matcher: PoseMatcher) -> Scale | None:
    """Find coordinates that are multiplied by a factor, as of predictions in a resized image.

    In each image, the pair of a prediction and a person that are best explained by a factor of x and one of y decides.

    Args:
        matcher: people and predictions.

    Returns:
        None if no factor explains half of the images, and at least 3, or it is 1.
    """
    arrays = matcher.arrays
    factors, images = _factors_of_images(matcher)
    with_both = len(np.intersect1d(arrays.images, arrays.gt_images[~arrays.gt_ignored]))
    if 2 * len(images) < with_both or len(images) < _MIN_IMAGES:
        return None
    median = np.median(factors, axis=0)
    deviation = 1.4826 * np.median(np.abs(factors - median), axis=0)
    difference = np.abs(median - 1)
    is_scaled = (difference > _MIN_SCALE) & (difference > _SIGNIFICANT * 1.2533 * deviation / np.sqrt(len(images)))
    # factors of both signs have a median of 1
    most_differ = np.median(np.abs(factors - 1).max(axis=1)) > _SPREAD
    if not is_scaled.any() and not most_differ:
        return None
    everywhere = np.tile(median, (arrays.num_images, 1))
    of_images = everywhere.copy()
    of_images[images] = factors
    options = [(everywhere, False)] + ([(of_images, True)] if float(np.max(deviation / median)) > _SPREAD else [])
    x, y = map(float, median)
    scales = [
        Scale(x, y, varies, used[arrays.images], ap_of(_divided(arrays, used[arrays.images])))
        for used, varies in options
    ]
    return max(scales, key=lambda scale: scale.ap)


def background_predictions(matcher: PoseMatcher) -> np.ndarray:
    """(N,) bool: predictions that no annotated person explains, by OKS (0.1) or by the IoU of the boxes (0.1).

    Args:
        matcher: people and predictions; crowds and people without labelled keypoints explain predictions too.
    """
    arrays = matcher.arrays
    alone = matcher.best_oks() < _BACKGROUND_OKS
    for rows, persons in _groups_of(arrays):
        alone[rows] &= (box_iou(arrays.boxes[rows], arrays.gt_boxes[persons]) < _BACKGROUND_IOU).all(axis=1)
    return alone


def duplicate_predictions(matcher: PoseMatcher) -> np.ndarray:
    """(N,) bool: predictions of a person that a prediction with a higher score has been matched with, at OKS 0.5.

    Args:
        matcher: people and predictions.
    """
    matches = matcher.match(np.array([_SAME_PERSON]))
    unmatched = (matches.people[:, 0] < 0) & ~matches.ignored[:, 0]
    taken = matches.found[matcher.pair_people, 0] & ~matcher.arrays.gt_ignored[matcher.pair_people]
    return unmatched & (matcher.best_oks(taken) >= _SAME_PERSON)


def missed_people(matcher: PoseMatcher) -> np.ndarray:
    """(P,) bool: people without a prediction, at OKS 0.1; ignored people are not missed."""
    return ~matcher.arrays.gt_ignored & ~matcher.match(np.array([_BACKGROUND_OKS])).found[:, 0]


def _robust_mean(errors: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of errors (M, 2) that are proportional to sizes (M,), without outliers; and its standard error."""
    deviations = np.abs(errors - np.median(errors, axis=0)) / sizes[:, None]
    inside = (deviations <= 3 * 1.4826 * np.median(deviations, axis=0)).all(axis=1)
    errors, weights = errors[inside], 1 / sizes[inside, None] ** 2
    mean = (weights * errors).sum(axis=0) / weights.sum()
    return mean, np.sqrt((weights**2 * (errors - mean) ** 2).sum(axis=0)) / weights.sum()


def _explains_most_people(arrays: PoseArrays, pairs: PersonPairs, order: np.ndarray) -> bool:
    """Whether the predicted keypoints in this order are nearer to the annotated ones in most people."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    points = arrays.gt_keypoints[pairs.people][:, moved]
    predicted = arrays.keypoints[pairs.predictions, :, :2]
    distances, exchanged = (
        (np.linalg.norm(predicted[:, places] - points[..., :2], axis=2) * (points[..., 2] > 0)).sum(axis=1)
        for places in (moved, order[moved])
    )
    counted = distances != exchanged
    return bool(counted.any()) and float((exchanged < distances)[counted].mean()) >= _MOST


def _groups_of(arrays: PoseArrays) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (predictions, people) of each group that has both."""
    groups, first, sizes = np.unique(arrays.groups, return_index=True, return_counts=True)
    low = np.searchsorted(arrays.gt_groups, groups)
    high = np.searchsorted(arrays.gt_groups, groups, side="right")
    for i in np.flatnonzero(high > low).tolist():
        yield np.arange(first[i], first[i] + sizes[i]), np.arange(low[i], high[i])


def _similarity_of_keypoints(arrays: PoseArrays, pairs: PersonPairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, K) mean similarity of predicted (rows) and annotated keypoints, and :func:`keypoint_confusions`.

    All keypoints have the same tolerance, so that similarities can be compared.
    """
    num_keypoints = len(arrays.sigmas)
    sigmas = np.full(num_keypoints, arrays.sigmas.mean())
    near = np.zeros(num_keypoints)
    total, confused, counts, both = (np.zeros((num_keypoints, num_keypoints)) for _ in range(4))
    step = max(1, _CHUNK // num_keypoints**2)
    for start in range(0, len(pairs.people), step):
        rows, people = pairs.predictions[start : start + step], pairs.people[start : start + step]
        labelled = arrays.gt_labelled[people]
        predicted = arrays.keypoints[rows][:, :, None, :2]
        distances = np.linalg.norm(predicted - arrays.gt_keypoints[people][:, None, :, :2], axis=3)
        similarity = keypoint_similarity(distances, np.repeat(arrays.gt_areas[people, None], num_keypoints, 1), sigmas)
        similarity *= labelled[:, None]
        own = np.diagonal(similarity, axis1=1, axis2=2)
        best = similarity.argmax(axis=2)
        is_other = (similarity.max(axis=2) >= _NEAR) & (own < _NEAR) & labelled
        people_of, keypoint = np.nonzero(is_other)
        np.add.at(confused, (keypoint, best[people_of, keypoint]), 1)
        total += similarity.sum(axis=0)
        counts += labelled.sum(axis=0)
        near += (own >= _NEAR).sum(axis=0)
        both += labelled.T.astype(np.float64) @ labelled
    confused = np.where(both >= _MIN_PEOPLE, confused / np.maximum(both, 1), 0)
    shares = confused, near / np.maximum(np.diagonal(both), 1)
    return total / np.maximum(counts, 1), *shares


def _factors_of_images(matcher: PoseMatcher) -> tuple[np.ndarray, np.ndarray]:
    """(I', 2) factors of x and y of the images that factors explain, and these images."""
    arrays = matcher.arrays
    chosen = np.flatnonzero(arrays.gt_labelled[matcher.pair_people].sum(axis=1) >= 2)
    chosen = chosen[~arrays.gt_ignored[matcher.pair_people[chosen]]]
    factors, residuals = np.ones((len(chosen), 2)), np.full(len(chosen), np.inf)
    step = max(1, _CHUNK // len(arrays.sigmas))
    for start in range(0, len(chosen), step):
        here = slice(start, start + step)
        rows, people = matcher.pair_predictions[chosen[here]], matcher.pair_people[chosen[here]]
        counted = arrays.gt_labelled[people][..., None]
        points, predicted = arrays.gt_keypoints[people, :, :2], arrays.keypoints[rows, :, :2]
        factors[here] = (predicted * points * counted).sum(axis=1) / np.maximum((points**2 * counted).sum(axis=1), 1)
        factors[here] = np.maximum(factors[here], 1e-6)
        errors = np.linalg.norm(predicted / factors[here][:, None] - points, axis=2) * counted[..., 0]
        size = np.sqrt(arrays.gt_areas[people] + np.spacing(1))
        residuals[here] = errors.sum(axis=1) / counted.sum(axis=(1, 2)) / size
    images = arrays.images[matcher.pair_predictions[chosen]]
    order = np.lexsort((residuals, images))
    order = order[residuals[order] < _MAX_RESIDUAL]
    explained, first = np.unique(images[order], return_index=True)
    return factors[order[first]], explained


def _divided(arrays: PoseArrays, factors: np.ndarray) -> PoseArrays:
    """Predictions divided by their factors (N, 2)."""
    return placed_at(arrays, arrays.keypoints[..., :2] / factors[:, None])
