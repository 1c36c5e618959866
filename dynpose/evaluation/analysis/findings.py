"""What is wrong with the predictions, in plain words, the largest fault first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from dynpose.data import KeypointSchema
from dynpose.data.flip_names import contradicted_pairs

from .arrays import PoseArrays
from .calibration import calibration
from .error_types import ERRORS, corrected_predictions, find_localization_errors, optimal_scores
from .matching import PoseMatcher
from .systematic import (
    Exchange,
    Offset,
    Scale,
    ap_of,
    ap_without_people,
    background_predictions,
    duplicate_predictions,
    find_exchange,
    find_offset,
    find_scale,
    keypoint_confusions,
    missed_people,
    pair_by_box,
    placed_at,
)

__all__ = ["Finding", "find_faults", "verdict"]

# AP points that correcting a fault must give at least
_EXCHANGE_GAIN, _SCALE_GAIN, _BACKGROUND_GAIN, _DUPLICATE_GAIN, _SCORE_GAIN = 2.0, 0.5, 5.0, 2.0, 3.0
# Rank correlations of score and OKS
_UNINFORMATIVE, _REVERSED = 0.1, -0.2
# Predictions from which such a correlation is no chance
_MIN_SCORES = 30
_MISSED_SHARE = 0.2
_MAX_CORRECTIONS = 3
_CONFUSED_SHARE, _TWO_PLACES = 0.2, 0.7
# AP points by which faults without a known gain are ordered
_UNKNOWN_GAIN = 0.99
# Factors of the coordinates that differ less from 1 may be a model's bias
_BIAS = 0.05
# Coordinates up to which all are fractions of the image, and AP below which other forms of coordinates are tried
_MAX_FRACTION, _LOW_AP = 1.5, 20.0

# Faults that are corrected one after the other: the gain of each is in addition to the others'
_OF_COORDINATES = {"exchanged_left_right", "exchanged_keypoints", "fractions", "exchanged_axes", "scale", "offset"}

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
    flip_pair_faults: list[str],
    image_sizes: np.ndarray,
) -> list[Finding]:
    """Look for systematic faults.

    Exchanged keypoints and wrong coordinates are corrected one after the other, the largest gain first, and all other
    faults are looked for in the corrected predictions: they would be consequences otherwise.

    Args:
        matcher: people and predictions.
        schema: K keypoints.
        flip_pair_faults: of :func:`~.data_summary.flip_pair_faults`.
        image_sizes: (I, 2) width and height, pixels; NaN = unknown.

    Returns:
        Exchanged left and right first, then by descending AP gain. Flip pairs that contradict the names of their
        keypoints come before all that is not a fault of the coordinates; other faults with an unknown gain follow the
        gains of at least 1.
    """
    arrays, of_data = matcher.arrays, [_flip_pairs(fault) for fault in flip_pair_faults]
    if arrays.gt_ignored.all() or not len(arrays.groups):
        return of_data
    findings = []
    ap = ap_of(arrays)
    for _ in range(_MAX_CORRECTIONS):
        corrections = list(_corrections(arrays, schema, ap, image_sizes))
        if not corrections:
            break
        finding, arrays = max(corrections, key=lambda correction: correction[0].ap_gain)
        findings.append(finding)
        ap += finding.ap_gain
    matcher = PoseMatcher(arrays)
    others = [
        _confused(matcher, schema, ap),
        _scores(matcher, ap),
        _background(matcher, ap),
        _duplicates(matcher, ap),
        _missed_people(matcher, ap),
    ]
    found = [finding for finding in others if finding is not None]
    # flip_pair_faults begins with these. They are certain, and may be the cause of what was found in the predictions.
    certain = of_data[: len(contradicted_pairs(schema))]
    certain_gain = max([_UNKNOWN_GAIN, *(finding.ap_gain for finding in found)])
    gains = [certain_gain] * len(certain) + [_UNKNOWN_GAIN] * len(of_data[len(certain) :])
    known = [*findings, *found]
    return _sorted([*of_data, *known], [*gains, *(finding.ap_gain for finding in known)])


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
        others = [each for each in findings[1:] if {first.kind, each.kind} <= _OF_COORDINATES]
        gain = first.ap_gain + sum(each.ap_gain for each in others)
        what = "it and the other faults of the coordinates" if others else "it"
        text = f" Correcting {what} gives AP {ap + gain:.1f}." if gain >= 0.05 else ""
        return f"{first.title} AP is {ap:.1f}.{text}"
    largest = max(ERRORS, key=lambda error: -math.inf if math.isnan(ap_alone[error]) else ap_alone[error])
    if not ap_alone[largest] - ap >= 0.05:
        return f"No systematic fault was found. AP is {ap:.1f}."
    return (
        f"No systematic fault was found. AP is {ap:.1f}; what costs most is {_ERROR_TEXTS[largest]}: AP would be "
        f"{ap_alone[largest]:.1f} if that were corrected."
    )


def _sorted(findings: list[Finding], gains: list[float]) -> list[Finding]:
    def order(item: tuple[Finding, float]) -> tuple[bool, float]:
        return item[0].kind != "exchanged_left_right", -item[1]

    return [finding for finding, _ in sorted(zip(findings, gains), key=order)]


def _corrections(
    arrays: PoseArrays, schema: KeypointSchema, ap: float, image_sizes: np.ndarray
) -> Iterator[tuple[Finding, PoseArrays]]:
    """Exchanged keypoints and wrong coordinates, each with the corrected predictions."""
    matcher = PoseMatcher(arrays)
    pairs = pair_by_box(matcher)
    exchange = find_exchange(arrays, pairs, schema.flip_indices)
    if exchange is not None and exchange.ap - ap >= _EXCHANGE_GAIN:
        yield _exchanged(exchange, schema, ap), arrays.with_predictions(keypoints=arrays.keypoints[:, exchange.order])
    yield from _other_coordinates(arrays, ap, image_sizes)
    scale = find_scale(matcher)
    if scale is not None and scale.ap - ap >= _SCALE_GAIN:
        yield _scaled(scale, ap), placed_at(arrays, arrays.keypoints[..., :2] / scale.factors[:, None])
    offset = find_offset(arrays, pairs)
    if offset is not None and offset.ap >= ap:
        yield _shifted(offset, ap), placed_at(arrays, arrays.keypoints[..., :2] - (offset.dx, offset.dy))


def _exchanged(exchange: Exchange, schema: KeypointSchema, ap: float) -> Finding:
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


def _confused(matcher: PoseMatcher, schema: KeypointSchema, ap: float) -> Finding | None:
    """Keypoints that are often, but not always, predicted in the place of another."""
    shares, near = keypoint_confusions(matcher.arrays, pair_by_box(matcher))
    # an untrained model is in many places, a confused one in two
    rows, columns = np.nonzero((shares >= _CONFUSED_SHARE) & (shares + near[:, None] >= _TWO_PLACES))
    if not len(rows):
        return None
    order = np.argsort(-shares[rows, columns], kind="stable")
    confused = [(int(i), int(j)) for i, j in zip(rows[order], columns[order])]
    twins = all(schema.flip_indices[i] == j for i, j in confused)
    named = [(schema.names[i], schema.names[j], 100 * shares[i, j]) for i, j in confused]
    first = named[0]
    return Finding(
        "confused_keypoints",
        f"The model confuses {'left and right' if twins else 'keypoints'}: {first[0]} is at {first[1]} in "
        f"{first[2]:.0f} % of the people.",
        _listed(f"{a} is at {b} in {share:.0f} %" for a, b, share in named) + ".",
        "Check the flip pairs of the training data: a wrong or missing pair teaches the model both places. Else train "
        "longer, or with fewer mirrored images.",
        _gain_without_confusions(matcher, confused, ap),
    )


def _gain_without_confusions(matcher: PoseMatcher, confused: list[tuple[int, int]], ap: float) -> float:
    """The gain of correcting these keypoints as inversions are corrected."""
    counterparts = np.arange(len(matcher.arrays.sigmas))
    for i, j in reversed(confused):
        counterparts[i] = j
    localization = find_localization_errors(matcher, counterparts)
    return ap_of(corrected_predictions(matcher.arrays, localization, ("inversion",))) - ap


def _other_coordinates(arrays: PoseArrays, ap: float, image_sizes: np.ndarray) -> Iterator[tuple[Finding, PoseArrays]]:
    """Coordinates in another form: fractions of the image, or y before x."""
    points = arrays.keypoints[..., :2]
    largest = np.abs(points).max()
    sizes = image_sizes[arrays.images]
    people = arrays.gt_keypoints[arrays.gt_labelled & ~arrays.gt_ignored[:, None]][:, :2]
    if largest <= _MAX_FRACTION < np.median(people) and np.isfinite(sizes).all():
        corrected = placed_at(arrays, points * sizes[:, None])
        yield (
            Finding(
                "fractions",
                "The predicted coordinates are fractions of the image's size, not pixels.",
                f"The largest is {largest:.2f}.",
                "Multiply x by the width and y by the height of the image before writing the results.",
                ap_of(corrected) - ap,
            ),
            corrected,
        )
    if ap >= _LOW_AP:
        return
    corrected = placed_at(arrays, points[..., ::-1])
    exchanged = ap_of(corrected)
    if exchanged - ap >= _EXCHANGE_GAIN:
        yield (
            Finding(
                "exchanged_axes",
                "x and y are exchanged: the predicted keypoints are y, x.",
                f"AP is {ap:.1f} as predicted, and {exchanged:.1f} with x and y exchanged.",
                "Write x before y.",
                exchanged - ap,
            ),
            corrected,
        )


def _scaled(scale: Scale, ap: float) -> Finding:
    factors = f"x is {scale.x:.3g} and y {scale.y:.3g} times the annotated one"
    if scale.varies:
        factors = f"the factors differ between the images; in the median image {factors}"
    text = f"AP is {ap:.1f} as predicted, and {scale.ap:.1f} with the coordinates divided by the factors."
    is_certain = scale.varies or max(abs(scale.x - 1), abs(scale.y - 1)) > _BIAS
    if not is_certain:
        text += " Factors this close to 1 may also be the bias of a model that is not trained enough."
    return Finding(
        "scale",
        f"The predicted coordinates {'belong' if is_certain else 'may belong'} to another image size: {factors}.",
        text,
        "Scale the predictions back from the resized image of the network to the original image, and check that the "
        "annotation is of the images that were predicted.",
        scale.ap - ap,
    )


def _shifted(offset: Offset, ap: float) -> Finding:
    return Finding(
        "offset",
        f"All keypoints are shifted by {_direction(offset.dx, 'to the right', 'to the left')} and "
        f"{_direction(offset.dy, 'down', 'up')}.",
        f"Mean error of the people: x {offset.dx:+.2f}, y {offset.dy:+.2f} pixels.",
        "Half a pixel: the predictions count from the corner of the first pixel, and COCO from its centre; subtract "
        "0.5. More: compare the padding and cropping in the preprocessing with what is undone afterwards.",
        offset.ap - ap,
    )


def _direction(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):.2g} pixels {positive if value >= 0 else negative}"


def _scores(matcher: PoseMatcher, ap: float) -> Finding | None:
    """Scores that do not order the predictions of people; those of the background are another fault."""
    arrays = matcher.arrays
    rest = PoseMatcher(arrays.with_predictions(kept=~background_predictions(matcher) & ~duplicate_predictions(matcher)))
    correlation = calibration(rest)["rank_correlation"]
    is_constant = np.ptp(arrays.scores) == 0
    if not is_constant and (not correlation < _UNINFORMATIVE or len(rest.arrays.scores) < _MIN_SCORES):
        return None
    gain = ap_of(arrays.with_predictions(scores=optimal_scores(matcher))) - ap
    if gain < _SCORE_GAIN:
        return None
    title = "The scores say little about the quality of the predictions."
    if is_constant:
        title = f"All predictions have the same score, {arrays.scores[0]:g}."
    elif correlation < _REVERSED:
        title = "The scores are reversed: worse predictions have higher ones."
    text = "" if is_constant else f"The rank correlation of score and OKS is {correlation:.2f}. "
    return Finding(
        "scores",
        title,
        f"{text}The best scores for these keypoints give AP {ap + gain:.1f}.",
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


def _missed_people(matcher: PoseMatcher, ap: float) -> Finding | None:
    counted = ~matcher.arrays.gt_ignored
    missed = missed_people(matcher)
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
        ap_without_people(matcher, missed) - ap,
    )


def _flip_pairs(fault: str) -> Finding:
    return Finding(
        "flip_pairs",
        f"The flip pairs of the data are doubtful: {fault}",
        "A wrong pair makes mirrored training images wrong.",
        "Correct the pairs (pairs in the file of dynpose train --data, else flip_pairs of the annotation's category or "
        "of DATASETS.POSE), and look at the page of dynpose check-data.",
        math.nan,
    )


def _listed(items: Iterable) -> str:
    items = list(map(str, items))
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")
