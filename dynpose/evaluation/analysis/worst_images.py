"""The images in which the predictions are worst."""

from __future__ import annotations

import numpy as np

from .arrays import PoseArrays
from .matching import PoseMatcher

__all__ = ["worst_images"]

_LOCALIZED = 0.1


def worst_images(matcher: PoseMatcher, number: int = 30) -> dict:
    """The images with the largest error.

    The error of an image is the sum of 1 - OKS over its people (1 for a person without a prediction), plus 1 for each
    prediction without a person. As many predictions count as there are people, those with the highest scores, and
    people are matched from OKS 0.1 on.

    Args:
        matcher: people and predictions.
        number: of images.

    Returns:
        ``score_threshold``, the lowest score that counts (NaN without predictions), and ``images``, those with an error
        above 0 in descending order: ``image`` (0-based), ``error``, ``people``, ``missed``, ``false_positives`` and
        ``mean_oks`` (over the matched people; NaN without any).
    """
    threshold = _threshold(matcher.arrays)
    kept = ~(matcher.arrays.scores < threshold)
    chosen = matcher if kept.all() else PoseMatcher(matcher.arrays.with_predictions(kept=kept))
    arrays = chosen.arrays
    matches = chosen.match(np.array([_LOCALIZED]))
    people, ignored = matches.people[:, 0], matches.ignored[:, 0]
    pairs = chosen.pair_people == people[chosen.pair_predictions]
    oks = np.zeros(len(arrays.gt_groups))
    np.maximum.at(oks, chosen.pair_people[pairs], chosen.oks[pairs])
    counted = ~arrays.gt_ignored
    missed = counted & ~matches.found[:, 0]
    of_image = {
        "people": _sum(arrays, counted, of_people=True),
        "missed": _sum(arrays, missed, of_people=True),
        "false_positives": _sum(arrays, (people < 0) & ~ignored),
        "oks": _sum(arrays, np.where(counted & matches.found[:, 0], oks, 0), of_people=True),
    }
    errors = of_image["people"] - of_image["oks"] + of_image["false_positives"]
    order = np.argsort(-errors, kind="stable")[:number]
    rows = []
    for image in order[errors[order] > 1e-9].tolist():
        found = of_image["people"][image] - of_image["missed"][image]
        rows.append(
            {
                "image": image,
                "error": float(errors[image]),
                **{name: int(of_image[name][image]) for name in ("people", "missed", "false_positives")},
                "mean_oks": float(of_image["oks"][image] / found) if found else float("nan"),
            }
        )
    return {"score_threshold": threshold, "images": rows}


def _threshold(arrays: PoseArrays) -> float:
    """The score that as many predictions reach as there are people."""
    scores = np.sort(arrays.scores)[::-1]
    if not len(scores):
        return float("nan")
    number = int((~arrays.gt_ignored).sum())
    return float(scores[np.clip(number - 1, 0, len(scores) - 1)])


def _sum(arrays: PoseArrays, values: np.ndarray, *, of_people: bool = False) -> np.ndarray:
    """Sums over each image."""
    images = arrays.gt_images if of_people else arrays.images
    return np.bincount(images, weights=values.astype(np.float64), minlength=arrays.num_images)
