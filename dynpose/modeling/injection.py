"""Helpers of the methods' ``inject_detections``, which replaces predictions for benchmarks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dynpose.utils.exporting import is_recording


@contextlib.contextmanager
def replaced(module: nn.Module, **attributes: Callable[..., Any]) -> Iterator[None]:
    """Replace methods of a module, on the instance, while the context is entered.

    Args:
        module: the module, changed in place.
        **attributes: the replacements by name of the method.
    """
    for name, value in attributes.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name in attributes:
            delattr(module, name)


def substitute(predicted: Tensor, injected: Tensor) -> Tensor:
    """Return ``injected`` instead of ``predicted``.

    In a recorded graph, of which FLOP counting is a case, the result still depends on the prediction: a graph has no
    unused operations, and theirs would be missing.

    Args:
        predicted (Tensor): any shape.
        injected (Tensor): any shape, on the same device.

    Returns:
        Tensor: the values of ``injected``.
    """
    return injected + 0 * predicted.sum() if is_recording() else injected


def corner_keypoints(boxes: Tensor, num_keypoints: int) -> Tensor:
    """Make keypoints whose tightest box is a given one: alternately its top left and bottom right corner.

    Args:
        boxes (Tensor): (..., 4), two corners x0, y0, x1, y1, in any unit.
        num_keypoints (int): K.

    Returns:
        Tensor: (..., K, 2), x and y in the same unit.
    """
    corners = boxes.unflatten(-1, (2, 2))
    return corners[..., torch.arange(num_keypoints, device=boxes.device) % 2, :]
