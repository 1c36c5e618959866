"""Soft-NMS (Bodla et al., ICCV 2017) on tensors, for many images and classes at once.

Axes: N boxes, G groups that do not compete with each other, M boxes in the largest group.
"""

import torch
from torch import Tensor

__all__ = ["soft_nms"]


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    method: str = "linear",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    max_per_group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes that overlap higher-scored ones, instead of dropping them.

    Each step selects the highest-scored remaining box of a group and multiplies the scores of the others by
    ``1 - IoU`` with it where the IoU is above ``iou_threshold`` ("linear", Eq. 3 of the paper), or by
    ``exp(-IoU^2 / sigma)`` everywhere ("gaussian", Eq. 4). All groups advance together, so the number of steps is the
    largest number of boxes selected from one group.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,), non-negative.
        groups: (N,) int64; boxes of different groups (images, classes) do not compete.
        method: "linear" or "gaussian".
        iou_threshold: for "linear".
        sigma: for "gaussian".
        min_score: boxes whose score falls below it are dropped; non-negative.
        max_per_group: maximum number of boxes kept per group; None = all.

    Returns:
        (S,) int64 indices of the kept boxes and (S,) their lowered scores, by descending score.

    Raises:
        ValueError: for an unknown method, a ``sigma`` that is not positive, or a negative ``min_score``.

    Example::

        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]])
        >>> soft_nms(boxes, torch.tensor([0.9, 0.8, 0.5]), torch.zeros(3, dtype=torch.int64))
        (tensor([0, 2, 1]), tensor([0.9000, 0.5000, 0.4000]))
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft_nms: method must be 'linear' or 'gaussian', got {method!r}")
    if not sigma > 0:
        raise ValueError(f"soft_nms: sigma must be positive, got {sigma!r}")
    if min_score < 0:
        raise ValueError(f"soft_nms: min_score must not be negative, got {min_score!r}")
    if not len(boxes):
        return groups.new_zeros(0), scores

    members = _members_of_groups(groups)
    boxes = boxes[members]
    # -1 marks selected boxes, dropped boxes and padding
    remaining = torch.where((members >= 0) & (scores[members] >= min_score), scores[members], -1.0)
    steps = members.shape[1] if max_per_group is None else min(max_per_group, members.shape[1])
    selected, selected_scores = [], []
    for _ in range(steps):
        best, place = remaining.max(dim=1, keepdim=True)
        selected.append(members.gather(1, place))
        selected_scores.append(best)
        iou = _iou_with(boxes.take_along_dim(place[..., None], dim=1), boxes)
        if method == "linear":
            weight = torch.where(iou > iou_threshold, 1 - iou, 1.0)
        else:
            weight = torch.exp(-iou.square() / sigma)
        lowered = remaining * weight
        left = (remaining >= 0) & (lowered >= min_score)
        remaining = torch.where(left, lowered, -1.0).scatter(1, place, -1.0)
    kept, kept_scores = torch.cat(selected, dim=1), torch.cat(selected_scores, dim=1)
    left = kept_scores >= 0
    kept, kept_scores = kept[left], kept_scores[left]
    order = kept_scores.argsort(descending=True, stable=True)
    return kept[order], kept_scores[order]


def _members_of_groups(groups):
    """(G, M) indices of the boxes of each group, in order, padded with -1."""
    _, group, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    group = group[order]
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[group]
    members = order.new_full((len(counts), int(counts.max())), -1)
    members[group, place] = order
    return members


def _iou_with(chosen, boxes):
    """IoU of one box per group, (G, 1, 4), with all boxes of the group, (G, M, 4): (G, M)."""
    low = torch.maximum(chosen[..., :2], boxes[..., :2])
    high = torch.minimum(chosen[..., 2:], boxes[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = _areas(chosen) + _areas(boxes) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def _areas(boxes):
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
