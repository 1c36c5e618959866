"""Errors of each keypoint: in pixels, in units of OKS, and by type.

Axes: L matched predictions, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import PoseArrays
from .error_types import KEYPOINT_ERRORS, LocalizationErrors

__all__ = ["errors_of_keypoints"]


def errors_of_keypoints(arrays: PoseArrays, localization: LocalizationErrors, names: Sequence[str]) -> list[dict]:
    """Errors of each keypoint over the predictions that are matched with a person at OKS 0.1.

    Args:
        arrays: people and predictions.
        localization: of :func:`~.error_types.find_localization_errors`.
        names: K keypoint names.

    Returns:
        For each keypoint ``name``, ``sigma``, the number ``labelled``, and over the labelled ones (NaN without any):
        ``median_px`` and ``mean_px``, the distance in pixels; ``median_oks_units``, the distance divided by the
        tolerance of OKS, ``2 * sigma * sqrt(area)`` (at 1 the similarity is 0.61); ``similarity``, the mean similarity;
        ``dx_px`` and ``dy_px``, the median signed error, positive to the right and down; and the shares, 0 to 100, of
        ``good`` keypoints and of each error in :data:`~.error_types.KEYPOINT_ERRORS`.
    """
    rows, people = localization.predictions, localization.people
    errors = arrays.keypoints[rows, :, :2] - arrays.gt_keypoints[people, :, :2]
    distances = np.linalg.norm(errors, axis=2)
    units = distances / (2 * arrays.sigmas * np.sqrt(arrays.gt_areas[people] + np.spacing(1))[:, None])
    result = []
    for k, name in enumerate(names):
        chosen = localization.labelled[:, k]
        shares = {"good": localization.good, **{error: localization.errors[error] for error in KEYPOINT_ERRORS}}
        result.append(
            {
                "name": name,
                "sigma": float(arrays.sigmas[k]),
                "labelled": int(chosen.sum()),
                "median_px": _value(np.median, distances[chosen, k]),
                "mean_px": _value(np.mean, distances[chosen, k]),
                "median_oks_units": _value(np.median, units[chosen, k]),
                "similarity": _value(np.mean, localization.similarities[chosen, k]),
                "dx_px": _value(np.median, errors[chosen, k, 0]),
                "dy_px": _value(np.median, errors[chosen, k, 1]),
                **{share: 100 * _value(np.mean, flags[chosen, k]) for share, flags in shares.items()},
            }
        )
    return result


def _value(function, values: np.ndarray) -> float:
    return float(function(values)) if len(values) else float("nan")
