"""Which predictions hold a NaN or an infinite number: models hand these on, and whoever uses them says so."""

import torch


def finite_instances(instances):
    """Tell predictions whose numbers are all finite from those of a diverged model.

    Args:
        instances (Instances): N, with ``scores`` and, where there are, ``pred_boxes`` and ``pred_keypoints``.

    Returns:
        Tensor: (N,) bool, False where the score, a coordinate of the box, or a coordinate or the confidence of a
        keypoint is not finite.

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
