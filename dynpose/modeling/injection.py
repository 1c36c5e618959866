"""Replacing a prediction by injected detections, for benchmarks: what every method's ``inject_detections`` shares."""

import torch


def substitute(predicted, injected):
    """Give ``injected`` in place of ``predicted``.

    On a trace, by which FLOPs are counted, the result still depends on the prediction: a trace drops whatever nothing
    depends on, and its FLOPs would be missing.

    Args:
        predicted (Tensor): any shape.
        injected (Tensor): any shape, on the same device.

    Returns:
        Tensor: the values of ``injected``.
    """
    return injected + torch.zeros_like(predicted).sum() if torch.jit.is_tracing() else injected


def corner_keypoints(boxes, num_keypoints):
    """Make keypoints that a box just encloses: by turns its upper left and its lower right corner.

    Args:
        boxes (Tensor): (..., 4), two corners x0, y0, x1, y1, in any unit.
        num_keypoints (int): K.

    Returns:
        Tensor: (..., K, 2), x and y in the same unit.
    """
    corners = boxes.unflatten(-1, (2, 2))
    return corners[..., torch.arange(num_keypoints, device=boxes.device) % 2, :]
