"""Detecting predictions with NaN or infinite values: models return them, and their callers report them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from detectron2.structures import Instances


def finite_instances(instances: Instances) -> torch.Tensor:
    """Find the predictions whose values are all finite; a diverged model returns others.

    Args:
        instances (Instances): N, with ``scores`` and optionally ``pred_boxes`` and ``pred_keypoints``.

    Returns:
        Tensor: (N,) bool, False if the score, a coordinate of the box, or a coordinate or the confidence of a keypoint
        is not finite.

    Example::

        >>> people = predictor(image)
        >>> people = people[finite_instances(people)]
    """
    finite = torch.isfinite(instances.scores)
    if instances.has("pred_boxes"):
        finite = finite & torch.isfinite(instances.pred_boxes.tensor).all(dim=1)
    if instances.has("pred_keypoints"):
        finite = finite & torch.isfinite(instances.pred_keypoints).flatten(1).all(dim=1)
    return finite
