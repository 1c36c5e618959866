"""QueryPose's set losses and keypoint targets, as free functions (section 3.4).

They are sums; the model divides them by the number of people.
Axes: B images, N queries per image, G people of the whole batch, P matched pairs, K keypoints.
Boxes and keypoints are in continuous pixels of the network's input unless stated to be relative to a box.
"""

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss


def class_loss(logits: Tensor, queries: Tensor, classes: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum of the focal losses of all queries; unmatched queries are background.

    Args:
        logits (Tensor): (B, N, num_classes).
        queries (Tensor): (P,) int64, matched queries among the B N.
        classes (Tensor): (P,) int64, classes of their people.
        alpha, gamma (float): of the focal loss.

    Returns:
        Tensor: scalar.
    """
    logits = logits.flatten(0, 1)
    targets = torch.zeros_like(logits)
    targets[queries, classes] = 1
    return sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="sum")


def box_losses(boxes: Tensor, gt_boxes: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the pairs of the corners' L1 distance, in units of the image's sides, and of 1 - GIoU.

    Args:
        boxes, gt_boxes (Tensor): (P, 4), pixels.
        image_sizes (Tensor): (P, 2) width and height of each pair's image, pixels.

    Returns:
        tuple[Tensor, Tensor]: two scalars.
    """
    boxes, gt_boxes = boxes.float(), gt_boxes.float()
    distance = ((boxes - gt_boxes) / image_sizes.repeat(1, 2)).abs().sum()
    return distance, generalized_box_iou_loss(boxes, gt_boxes, reduction="sum")


def to_relative(points: Tensor, boxes: Tensor) -> Tensor:
    """Convert keypoints to positions relative to the box's centre, in units of its sides: the box spans -0.5..0.5.

    Args:
        points (Tensor): (..., K, 2), pixels.
        boxes (Tensor): (..., 4), pixels; sides of positive length.
    """
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    return (points - (low + high) / 2) / (high - low)


def from_relative(points: Tensor, boxes: Tensor) -> Tensor:
    """Convert back to pixels, the inverse of :func:`to_relative`."""
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    return points * (high - low) + (low + high) / 2


def keypoint_targets(keypoints: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoint targets of matched queries, relative to their predicted boxes.

    Args:
        keypoints (Tensor): (P, K, 3), pixels and visibility.
        boxes (Tensor): (P, 4), predicted, detached.

    Returns:
        tuple[Tensor, Tensor]: targets (P, K, 2) relative to the box, 0 for keypoints without a loss, and the mask
        (P, K) bool of keypoints with one: labelled, visible or not, and inside the predicted box.
    """
    relative = to_relative(keypoints[..., :2].float(), boxes.float())
    learnt = (keypoints[..., 2] > 0) & (relative.abs() <= 0.5).all(dim=-1)
    return torch.where(learnt[..., None], relative, 0.0), learnt
