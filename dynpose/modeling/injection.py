"""Helpers of the methods' ``inject_detections``, which replaces predictions for benchmarks."""

import torch


def substitute(predicted, injected):
    """Return ``injected`` instead of ``predicted``.

    In a trace, which FLOP counting uses, the result still depends on the prediction: a trace drops unused operations,
    and their FLOPs would be missing.

    Args:
        predicted (Tensor): any shape.
        injected (Tensor): any shape, on the same device.

    Returns:
        Tensor: the values of ``injected``.
    """
    return injected + torch.zeros_like(predicted).sum() if torch.jit.is_tracing() else injected


def corner_keypoints(boxes, num_keypoints):
    """Make keypoints whose tightest box is a given one: alternately its top left and bottom right corner.

    Args:
        boxes (Tensor): (..., 4), two corners x0, y0, x1, y1, in any unit.
        num_keypoints (int): K.

    Returns:
        Tensor: (..., K, 2), x and y in the same unit.
    """
    corners = boxes.unflatten(-1, (2, 2))
    return corners[..., torch.arange(num_keypoints, device=boxes.device) % 2, :]
