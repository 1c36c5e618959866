"""Types of errors, and the AP that correcting each of them would give.

Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017. Section 3 defines
the errors: localization errors of keypoints (section 3.1: jitter, inversion, swap, miss), scoring errors (3.2), and
background errors (3.3: false positives and false negatives). The details are those of the authors' tool, coco-analyze,
except that a corrected keypoint is moved to the stated similarity: the tool leaves the factor 2 of ``2 * sigma`` out of
the distance and moves it half as far from the annotated location.

Axes: P people, N predictions, K keypoints, L predictions matched with a person, M pairs, T OKS thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import PoseArrays
from .matching import Matches, PoseMatcher, keypoint_similarity, mean_of

__all__ = [
    "ERRORS",
    "KEYPOINT_ERRORS",
    "LocalizationErrors",
    "ap_after_corrections",
    "corrected_predictions",
    "find_localization_errors",
    "optimal_scores",
]

KEYPOINT_ERRORS = ("miss", "swap", "inversion", "jitter")
"""Errors of single keypoints, in the order in which the paper corrects them (its figure 1)."""
ERRORS = (*KEYPOINT_ERRORS, "score", "false_positives", "missed_people")
"""All errors, in the order in which the paper corrects them."""

_LOCALIZED = 0.1
"""OKS from which a prediction's keypoints are analysed."""
_GOOD, _NEAR = 0.85, 0.5
"""Keypoint similarities: at most human error, and near a keypoint (section 3.1)."""
_NMS_VARIANCE = 0.5


@dataclass(frozen=True)
class LocalizationErrors:
    """Errors of the keypoints of matched predictions.

    Attributes:
        predictions: (L,) predictions matched with a person at OKS 0.1.
        people: (L,) their people.
        labelled: (L, K) bool, the keypoints that are annotated; all others are no errors.
        similarities: (L, K) similarity of each keypoint to the annotated one; 0 if that is not labelled.
        good: (L, K) bool, correct within human error.
        errors: "miss", "swap", "inversion" and "jitter" -> (L, K) bool.
        corrected: (L, K, 2) keypoints with all errors corrected.
    """

    predictions: np.ndarray
    people: np.ndarray
    labelled: np.ndarray
    similarities: np.ndarray
    good: np.ndarray
    errors: dict[str, np.ndarray]
    corrected: np.ndarray


def find_localization_errors(matcher: PoseMatcher, flip_indices: np.ndarray) -> LocalizationErrors:
    """Classify the keypoints of predictions that are matched with a person (section 3.1).

    The annotated keypoint that is most similar to a predicted one decides, among the same keypoint and its left/right
    counterpart of all people of the image: the keypoint itself is *good* from a similarity of 0.85 and *jitter* from
    0.5; from 0.5, the counterpart of the same person is an *inversion*, and a keypoint of another person a *swap*.
    Without any similarity of 0.5 it is a *miss*.

    Args:
        matcher: people and predictions.
        flip_indices: (K,) left/right counterpart of each keypoint, see ``KeypointSchema.flip_indices``.
    """
    arrays = matcher.arrays
    matches = matcher.match(np.array([_LOCALIZED]))
    predictions = np.flatnonzero((matches.people[:, 0] >= 0) & ~matches.ignored[:, 0])
    people = matches.people[predictions, 0]
    own, inverted, others = _similarities(matcher, predictions, people, np.asarray(flip_indices))
    best = np.maximum(own, np.maximum(inverted, others))
    labelled = arrays.gt_labelled[people]
    is_own, near = own == best, best >= _NEAR
    is_inverted = ~is_own & (inverted == best)
    errors = {
        "miss": labelled & ~near,
        "swap": labelled & near & ~is_own & ~is_inverted,
        "inversion": labelled & near & is_inverted,
        "jitter": labelled & near & is_own & (best < _GOOD),
    }
    return LocalizationErrors(
        predictions=predictions,
        people=people,
        labelled=labelled,
        similarities=np.maximum(own, 0),
        good=labelled & is_own & (best >= _GOOD),
        errors=errors,
        corrected=_corrected(arrays, predictions, people, best, errors),
    )


def ap_after_corrections(
    matcher: PoseMatcher, localization: LocalizationErrors
) -> tuple[dict[str, float], dict[str, float]]:
    """AP after correcting each error alone, and after correcting it and all before it in :data:`ERRORS`.

    Keypoints are corrected to the similarity that the error's definition allows: jitter to 0.85, a miss to 0.5, an
    inversion or a swap to the similarity that it has to the wrong keypoint. Scores are replaced by the optimal ones
    (section 3.2): the highest OKS with a person, decayed by soft-NMS. Unmatched predictions, and unmatched people, are
    ignored at each OKS threshold (section 3.3). Alone, those unmatched at OKS 0.1 are ignored: at higher thresholds, an
    inexact prediction is unmatched too, and so is its person.

    Args:
        matcher: people and predictions.
        localization: of :func:`find_localization_errors`.

    Returns:
        error -> AP, 0 to 100, alone and cumulative. The last cumulative value is 100 if anybody was found.
    """
    arrays = matcher.arrays
    alone = {error: _ap(corrected_predictions(arrays, localization, (error,))) for error in KEYPOINT_ERRORS}
    alone["score"] = _ap(arrays.with_predictions(scores=optimal_scores(matcher)))
    near = matcher.match(np.array([_LOCALIZED]))
    alone["false_positives"] = _ap(arrays.with_predictions(kept=near.people[:, 0] >= 0))
    gt_ignored = arrays.gt_ignored | ~near.found[:, 0]
    matches = matcher.match(gt_ignored=gt_ignored)
    alone["missed_people"] = mean_of(matcher.precision(matches, gt_ignored=gt_ignored)[0])

    cumulative = {}
    for i, error in enumerate(KEYPOINT_ERRORS, start=1):
        corrected = PoseMatcher(corrected_predictions(arrays, localization, KEYPOINT_ERRORS[:i]))
        cumulative[error] = mean_of(corrected.precision(corrected.match())[0])
    rescored = PoseMatcher(corrected.arrays.with_predictions(scores=optimal_scores(corrected)))
    matches = rescored.match()
    cumulative["score"] = mean_of(rescored.precision(matches)[0])
    cumulative["false_positives"] = _ap_without_unmatched(rescored, matches, people=False)
    cumulative["missed_people"] = _ap_without_unmatched(rescored, matches, people=True)
    return alone, cumulative


def optimal_scores(matcher: PoseMatcher) -> np.ndarray:
    """(N,) scores that rank the predictions best (section 3.2): the highest OKS, decayed by soft-NMS."""
    arrays = matcher.arrays
    scores = matcher.best_oks()
    low, high = arrays.keypoints[..., :2].min(axis=1), arrays.keypoints[..., :2].max(axis=1)
    areas = np.prod(high - low, axis=1)
    _, first, sizes = np.unique(arrays.groups, return_index=True, return_counts=True)
    for start, size in zip(first[sizes > 1].tolist(), sizes[sizes > 1].tolist()):
        here = slice(start, start + size)
        overlaps = _oks_of_predictions(arrays.keypoints[here, :, :2], areas[here], arrays.sigmas)
        scores[here] = _decay(scores[here], np.exp(-(overlaps**2) / _NMS_VARIANCE))
    return scores


def _similarities(
    matcher: PoseMatcher, predictions: np.ndarray, people: np.ndarray, flip_indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(L, K) similarities with the own keypoint, its counterpart, and either of the most similar other person."""
    arrays = matcher.arrays
    labelled = arrays.gt_labelled
    row_of = np.full(len(arrays.groups), -1)
    row_of[predictions] = np.arange(len(predictions))
    chosen = np.flatnonzero(row_of[matcher.pair_predictions] >= 0)
    pair_rows, pair_people = row_of[matcher.pair_predictions[chosen]], matcher.pair_people[chosen]
    shape = (len(predictions), arrays.keypoints.shape[1])
    own, inverted, others = (np.full(shape, -1.0) for _ in range(3))
    for start in range(0, len(chosen), 100_000):
        rows, persons = pair_rows[start : start + 100_000], pair_people[start : start + 100_000]
        same = np.where(labelled[persons], matcher.of_pairs(predictions[rows], persons), -1)
        flipped = _flipped_similarity(arrays, predictions[rows], persons, flip_indices)
        is_own = persons == people[rows]
        own[rows[is_own]], inverted[rows[is_own]] = same[is_own], flipped[is_own]
        np.maximum.at(others, rows[~is_own], np.maximum(same, flipped)[~is_own])
    return own, inverted, others


def _flipped_similarity(
    arrays: PoseArrays, predictions: np.ndarray, people: np.ndarray, flip_indices: np.ndarray
) -> np.ndarray:
    """(M, K) similarities with the counterparts of the keypoints; the tolerance is that of the predicted keypoint."""
    counterparts = arrays.gt_keypoints[people][:, flip_indices]
    distances = np.linalg.norm(arrays.keypoints[predictions, :, :2] - counterparts[..., :2], axis=2)
    similarity = keypoint_similarity(distances, arrays.gt_areas[people], arrays.sigmas)
    return np.where(counterparts[..., 2] > 0, similarity, -1)


def _corrected(
    arrays: PoseArrays, predictions: np.ndarray, people: np.ndarray, best: np.ndarray, errors: dict[str, np.ndarray]
) -> np.ndarray:
    """(L, K, 2) keypoints at the similarity that correcting their error gives; all others unchanged."""
    target = np.where(errors["jitter"], _GOOD, np.where(errors["miss"], _NEAR, np.clip(best, _NEAR, 1)))
    spread = 2 * arrays.sigmas * np.sqrt(arrays.gt_areas[people])[:, None]
    distance = np.sqrt(-2 * np.log(target)) * spread
    points = arrays.gt_keypoints[people, :, :2].copy()
    points[..., 0] += distance
    is_error = np.any(list(errors.values()), axis=0)
    return np.where(is_error[..., None], points, arrays.keypoints[predictions, :, :2])


def corrected_predictions(arrays: PoseArrays, localization: LocalizationErrors, names: tuple[str, ...]) -> PoseArrays:
    """Predictions with some errors of keypoints corrected.

    Args:
        arrays: people and predictions.
        localization: of :func:`find_localization_errors`.
        names: of :data:`KEYPOINT_ERRORS`.
    """
    keypoints = arrays.keypoints.copy()
    wrong = np.any([localization.errors[name] for name in names], axis=0)
    rows = localization.predictions
    keypoints[rows, :, :2] = np.where(wrong[..., None], localization.corrected, keypoints[rows, :, :2])
    return arrays.with_predictions(keypoints=keypoints)


def _ap(arrays: PoseArrays) -> float:
    matcher = PoseMatcher(arrays)
    return mean_of(matcher.precision(matcher.match())[0])


def _ap_without_unmatched(matcher: PoseMatcher, matches: Matches, *, people: bool) -> float:
    """AP without predictions, or also without people, that are not matched at each threshold."""
    ignored, gt_ignored = matches.ignored | (matches.people < 0), matcher.arrays.gt_ignored
    if people:
        gt_ignored = gt_ignored[:, None] | ~matches.found
    return mean_of(matcher.precision(matches, ignored=ignored, gt_ignored=gt_ignored)[0])


def _oks_of_predictions(points: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(D, D) OKS between the D predictions of a group, with the mean of two areas."""
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=3)
    area = (areas[:, None] + areas[None])[..., None] / 2 + np.spacing(1)
    return np.exp(-distances / (2 * sigmas) ** 2 / area / 2).mean(axis=2)


def _decay(scores: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Soft-NMS (Bodla et al., ICCV 2017): the best of the remaining scores decays the others."""
    remaining, result = scores.copy(), scores.copy()
    for _ in range(len(scores)):
        best = int(np.argmax(remaining))
        result[best] = remaining[best]
        remaining = np.where(remaining >= 0, remaining * factors[best], -1)
        remaining[best] = -1
    return result
