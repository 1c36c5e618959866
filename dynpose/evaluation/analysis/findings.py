"""What is wrong with the predictions, in plain words, the largest fault first."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dynpose.data import KeypointSchema

from .arrays import PoseArrays
from .error_types import ERRORS
from .matching import PoseMatcher
from .systematic import (
    Exchange,
    ap_of,
    background_predictions,
    duplicate_predictions,
    find_exchange,
    find_offset,
    find_scale,
    keypoint_confusions,
    pair_by_box,
)

__all__ = ["Finding", "find_faults", "verdict"]

# AP points that correcting a fault must give at least
_EXCHANGE_GAIN, _SCALE_GAIN, _BACKGROUND_GAIN, _DUPLICATE_GAIN, _SCORE_GAIN = 2.0, 0.5, 5.0, 2.0, 3.0
# The probability that a correct prediction has a higher score than a wrong one
_UNINFORMATIVE, _REVERSED = 0.65, 0.4
_MISSED_SHARE = 0.2
_CONFUSED_SHARE = 0.2
# Coordinates up to which all are fractions of the image, and AP below which other forms of coordinates are tried
_MAX_FRACTION, _LOW_AP = 1.5, 20.0

_ERROR_TEXTS = {
    "miss": "keypoints far from any annotated one of their kind (misses)",
    "swap": "keypoints on another person (swaps)",
    "inversion": "left and right of the same person confused (inversions)",
    "jitter": "keypoints near their place but beyond human error (jitter)",
    "score": "the order of the scores",
    "false_positives": "predictions without a person (false positives)",
    "missed_people": "people without a prediction (misses of whole people)",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: "exchanged_left_right", "exchanged_keypoints", "confused_keypoints", "fractions", "exchanged_axes",
            "scale", "offset", "scores", "background", "duplicates", "missed_people" or "flip_pairs".
        title: the fault in one sentence.
        text: the numbers behind it.
        remedy: what to do.
        ap_gain: AP points that correcting it would give; NaN if unknown.
    """

    kind: str
    title: str
    text: str
    remedy: str
    ap_gain: float


def find_faults(
    matcher: PoseMatcher,
    schema: KeypointSchema,
    *,
    ap: float,
    calibration: dict,
    ap_alone: dict[str, float],
    flip_pair_faults: list[str],
    image_sizes: np.ndarray,
) -> list[Finding]:
    """Look for systematic faults.

    Args:
        matcher: people and predictions.
        schema: K keypoints.
        ap: of the predictions, 0 to 100.
        calibration: of :func:`~.calibration.calibration`.
        ap_alone: of :func:`~.error_types.ap_after_corrections`.
        flip_pair_faults: of :func:`~.data_summary.flip_pair_faults`.
        image_sizes: (I, 2) width and height, pixels; NaN = unknown.

    Returns:
        By descending AP gain; those with an unknown gain follow the gains of at least 1.
    """
    arrays = matcher.arrays
    if math.isnan(ap) or not len(arrays.groups):
        return _sorted([_flip_pairs(fault) for fault in flip_pair_faults])
    pairs = pair_by_box(arrays)
    exchange = find_exchange(arrays, pairs, schema.flip_indices)
    candidates = [
        _exchanged(exchange, schema, ap),
        _coordinates(arrays, ap, image_sizes),
        _scale(matcher, ap),
        _offset(arrays, pairs, ap),
        _scores(arrays, ap, calibration, ap_alone),
        _background(matcher, ap),
        _duplicates(matcher, ap),
        _missed_people(matcher, ap, ap_alone),
    ]
    findings = [finding for finding in candidates if finding is not None]
    if not any(finding.kind.startswith("exchanged") for finding in findings):
        confused = _confused(keypoint_confusions(arrays, pairs), schema, ap, ap_alone)
        findings += [] if confused is None else [confused]
    return _sorted([*findings, *map(_flip_pairs, flip_pair_faults)])


def verdict(findings: list[Finding], ap: float, ap_alone: dict[str, float], num_predictions: int) -> str:
    """One or two sentences: the largest fault, or the error that costs most.

    Args:
        findings: of :func:`find_faults`.
        ap: 0 to 100.
        ap_alone: of :func:`~.error_types.ap_after_corrections`; {} = not computed.
        num_predictions: N.
    """
    if not num_predictions:
        return "There are no predictions: everybody is missed."
    if math.isnan(ap):
        return "Nobody in the annotation has labelled keypoints: there is nothing to compare the predictions with."
    if findings:
        first = findings[0]
        gain = f" Correcting it gives AP {ap + first.ap_gain:.1f}." if first.ap_gain >= 0.05 else ""
        return f"{first.title} AP is {ap:.1f}.{gain}"
    largest = max(ERRORS, key=lambda error: ap_alone[error])
    return (
        f"No systematic fault was found. AP is {ap:.1f}; what costs most is {_ERROR_TEXTS[largest]}: without them AP "
        f"would be {ap_alone[largest]:.1f}."
    )


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: -(0.99 if math.isnan(finding.ap_gain) else finding.ap_gain))


def _exchanged(exchange: Exchange | None, schema: KeypointSchema, ap: float) -> Finding | None:
    if exchange is None or exchange.ap - ap < _EXCHANGE_GAIN:
        return None
    order = exchange.order
    moved = [k for k in range(schema.num_keypoints) if order[k] != k]
    names = [schema.names[k] for k in moved]
    text = f"AP is {ap:.1f} as predicted, and {exchange.ap:.1f} with the keypoints exchanged."
    if np.array_equal(order[moved], schema.flip_indices[moved]):
        every = len(moved) == 2 * len(schema.flip_pairs)
        which = "" if every else f" of {_listed(dict.fromkeys(_twin_name(schema, k) for k in moved))}"
        return Finding(
            "exchanged_left_right",
            f"Left and right{which} are exchanged: the predicted left keypoints are at the annotated right ones.",
            text,
            "Compare the order of the keypoints and the flip pairs of the training data with those of this annotation "
            "(dynpose check-data draws them), and check that mirrored images exchange their keypoints once.",
            exchange.ap - ap,
        )
    return Finding(
        "exchanged_keypoints",
        f"The keypoints {_listed(names)} are exchanged: each is predicted in the place of another.",
        f"{text} {_listed(f'{schema.names[order[k]]} is at {schema.names[k]}' for k in moved)}.",
        "Compare the order of the keypoint names in the training data with that of this annotation.",
        exchange.ap - ap,
    )


def _twin_name(schema: KeypointSchema, k: int) -> str:
    twin = int(schema.flip_indices[k])
    return " / ".join(schema.names[i] for i in sorted((k, twin)))


def _confused(
    shares: np.ndarray, schema: KeypointSchema, ap: float, ap_alone: dict[str, float]
) -> Finding | None:
    """Keypoints that are often, but not always, predicted in the place of another."""
    rows, columns = np.nonzero(shares >= _CONFUSED_SHARE)
    if not len(rows):
        return None
    order = np.argsort(-shares[rows, columns], kind="stable")
    named = [(schema.names[i], schema.names[j], shares[i, j]) for i, j in zip(rows[order], columns[order])]
    twins = all(schema.flip_indices[i] == j for i, j in zip(rows, columns))
    first = named[0]
    return Finding(
        "confused_keypoints",
        f"The model confuses {'left and right' if twins else 'keypoints'}: {first[0]} is at {first[1]} in "
        f"{100 * first[2]:.0f} % of the people.",
        _listed(f"{a} is at {b} in {100 * share:.0f} %" for a, b, share in named) + ".",
        "Check the flip pairs of the training data: a wrong or missing pair teaches the model both places. Else train "
        "longer, or with fewer mirrored images.",
        ap_alone["inversion"] - ap if twins else math.nan,
    )


def _coordinates(arrays: PoseArrays, ap: float, image_sizes: np.ndarray) -> Finding | None:
    """Coordinates in another form: fractions of the image, or y before x."""
    points = arrays.keypoints[..., :2]
    people = arrays.gt_keypoints[arrays.gt_labelled][:, :2]
    if np.abs(points).max() <= _MAX_FRACTION < np.median(people):
        keypoints = arrays.keypoints.copy()
        keypoints[..., :2] *= image_sizes[arrays.images][:, None]
        known = bool(np.isfinite(keypoints).all())
        gain = ap_of(arrays.with_predictions(keypoints=keypoints)) - ap if known else math.nan
        return Finding(
            "fractions",
            "The predicted coordinates are fractions of the image's size, not pixels.",
            f"All lie within {np.abs(points).max():.2f} of 0.",
            "Multiply x by the width and y by the height of the image before writing the results.",
            gain,
        )
    if ap >= _LOW_AP:
        return None
    exchanged = ap_of(arrays.with_predictions(keypoints=arrays.keypoints[..., [1, 0, 2]]))
    if exchanged - ap < _EXCHANGE_GAIN:
        return None
    return Finding(
        "exchanged_axes",
        "x and y are exchanged: the predicted keypoints are y, x.",
        f"AP is {ap:.1f} as predicted, and {exchanged:.1f} with x and y exchanged.",
        "Write x before y.",
        exchanged - ap,
    )


def _scale(matcher: PoseMatcher, ap: float) -> Finding | None:
    scale = find_scale(matcher)
    if scale is None or scale.ap - ap < _SCALE_GAIN:
        return None
    varies = ", by factors that differ between images" if scale.varies else ""
    return Finding(
        "scale",
        f"The predicted coordinates belong to another image size{varies}: x is {scale.x:.3g} and y {scale.y:.3g} times "
        f"the annotated one.",
        f"AP is {ap:.1f} as predicted, and {scale.ap:.1f} with the coordinates divided by these factors.",
        "Scale the predictions back from the resized image of the network to the original image, and check that the "
        "annotation is of the images that were predicted.",
        scale.ap - ap,
    )


def _offset(arrays: PoseArrays, pairs, ap: float) -> Finding | None:
    offset = find_offset(arrays, pairs)
    if offset is None or offset.ap < ap:
        return None
    return Finding(
        "offset",
        f"All keypoints are shifted by {_direction(offset.dx, 'to the right', 'to the left')} and "
        f"{_direction(offset.dy, 'down', 'up')}.",
        f"Median error of all keypoints: x {offset.dx:+.2f}, y {offset.dy:+.2f} pixels.",
        "Half a pixel: the predictions count from the corner of the first pixel, and COCO from its centre; subtract "
        "0.5. More: compare the padding and cropping in the preprocessing with what is undone afterwards.",
        offset.ap - ap,
    )


def _direction(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):.2g} pixels {positive if value >= 0 else negative}"


def _scores(arrays: PoseArrays, ap: float, calibration: dict, ap_alone: dict[str, float]) -> Finding | None:
    auroc, gain = calibration["auroc"], ap_alone["score"] - ap
    if math.isnan(auroc) or auroc >= _UNINFORMATIVE or gain < _SCORE_GAIN:
        return None
    title = "The scores say little about the quality of the predictions."
    if np.ptp(arrays.scores) == 0:
        title = f"All predictions have the same score, {arrays.scores[0]:g}."
    elif auroc < _REVERSED:
        title = "The scores are reversed: wrong predictions have higher ones than correct predictions."
    return Finding(
        "scores",
        title,
        f"A correct prediction has a higher score than a wrong one with a probability of {auroc:.2f} (0.5 is chance). "
        f"The best scores for these keypoints give AP {ap_alone['score']:.1f}.",
        "Write the score of the detection, not a constant or a rank, and check that it is trained with the keypoints.",
        gain,
    )


def _background(matcher: PoseMatcher, ap: float) -> Finding | None:
    arrays = matcher.arrays
    alone = background_predictions(matcher)
    gain = ap_of(arrays.with_predictions(kept=~alone)) - ap if alone.any() else 0.0
    if gain < _BACKGROUND_GAIN:
        return None
    return Finding(
        "background",
        f"{alone.sum()} of {len(alone)} predictions show nobody who is annotated.",
        f"Without them AP is {ap + gain:.1f}. Their median score is {np.median(arrays.scores[alone]):.2f}, that of the "
        f"others {np.median(arrays.scores[~alone]) if (~alone).any() else math.nan:.2f}.",
        "Look at the worst images: people who are there but not annotated need annotation, or a crowd region. If the "
        "predictions are background, train with images without people.",
        gain,
    )


def _duplicates(matcher: PoseMatcher, ap: float) -> Finding | None:
    duplicates = duplicate_predictions(matcher)
    gain = ap_of(matcher.arrays.with_predictions(kept=~duplicates)) - ap if duplicates.any() else 0.0
    if gain < _DUPLICATE_GAIN:
        return None
    return Finding(
        "duplicates",
        f"People are predicted more than once: {duplicates.sum()} of {len(duplicates)} predictions are duplicates.",
        f"Without them AP is {ap + gain:.1f}.",
        "Lower the threshold of NMS, or use NMS on OKS.",
        gain,
    )


def _missed_people(matcher: PoseMatcher, ap: float, ap_alone: dict[str, float]) -> Finding | None:
    counted = ~matcher.arrays.gt_ignored
    missed = counted & ~matcher.match(np.array([0.1])).found[:, 0]
    share = missed.sum() / max(1, counted.sum())
    if share < _MISSED_SHARE:
        return None
    sizes = np.sqrt(matcher.arrays.gt_areas)
    return Finding(
        "missed_people",
        f"{missed.sum()} of {counted.sum()} people have no prediction with an OKS of 0.1.",
        f"The median size of the missed people is {np.median(sizes[missed]):.0f} pixels (the square root of the area), "
        f"that of all people {np.median(sizes[counted]):.0f}.",
        "Small people: larger input images. Else lower the score threshold of the predictions, which AP needs down to "
        "0, and raise their number per image.",
        ap_alone["missed_people"] - ap,
    )


def _flip_pairs(fault: str) -> Finding:
    return Finding(
        "flip_pairs",
        f"The flip pairs of the data are doubtful: {fault}",
        "A wrong pair makes mirrored training images wrong.",
        "Correct flip_pairs where the data set is registered, and look at the page of dynpose check-data.",
        math.nan,
    )


def _listed(items) -> str:
    items = list(map(str, items))
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")
