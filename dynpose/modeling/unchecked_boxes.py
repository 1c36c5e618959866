"""Predicted boxes that keep non-finite boxes in detectron2's post-processing."""

import torch
from detectron2.structures import Boxes
from torch import Tensor


class UncheckedBoxes(Boxes):
    """Predicted boxes; those with a NaN or infinite coordinate are neither clipped nor dropped.

    detectron2's ``Boxes.clip`` fails with an assertion for such a box, and ``nonempty`` drops it silently. Here it
    reaches the evaluator, which skips it and reports how many there are, in which images. Indexing returns plain
    ``Boxes``, so that this ends with ``detector_postprocess``.

    Example::

        >>> boxes = UncheckedBoxes(torch.tensor([[0.0, 0, 20, 20], [0, 0, float("nan"), 20]]))
        >>> boxes.clip((10, 10))
        >>> boxes.tensor, boxes.nonempty()
        (tensor([[0., 0., 10., 10.], [0., 0., nan, 20.]]), tensor([True, True]))
    """

    tensor: Tensor

    def clip(self, box_size: tuple[int, int]) -> None:
        """Clip the finite boxes to (height, width), in place."""
        finite = is_finite(self.tensor)
        clipped = Boxes(torch.where(finite, self.tensor, 0))
        clipped.clip(box_size)
        self.tensor = torch.where(finite, clipped.tensor, self.tensor)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool: both sides are longer than ``threshold``, or the box is non-finite."""
        return super().nonempty(threshold) | ~is_finite(self.tensor)[:, 0]


def is_finite(boxes: Tensor) -> Tensor:
    """(N, 1) bool: all coordinates of a box (N, 4) are finite."""
    return boxes.isfinite().all(dim=1, keepdim=True)


def without_overlap(boxes: Tensor, scores: Tensor) -> Tensor:
    """Prepare boxes for NMS so that non-finite predictions neither suppress others nor are suppressed.

    torchvision's batched NMS shifts boxes by the largest coordinate: a single NaN would disable all suppression.

    Args:
        boxes (Tensor): (N, 4) XYXY.
        scores (Tensor): (N,).

    Returns:
        Tensor: (N, 4), a point at the origin if a coordinate or the score is non-finite.
    """
    return torch.where(is_finite(boxes) & scores.isfinite()[:, None], boxes, 0)
