"""Soft-NMS (Bodla et al., ICCV 2017) on tensors, for many images and classes at once.

Axes: N boxes, G groups that do not compete with each other, M boxes in the largest group.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SOFT_NMS_METHODS", "select_softly", "soft_nms"]

SOFT_NMS_METHODS = ("linear", "gaussian")


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
    _check_arguments("soft_nms", method, sigma, min_score)
    if not len(boxes):
        return groups.new_zeros(0), scores
    members = _members_of_groups(groups)
    boxes = boxes[members]
    return select_softly(
        members,
        scores,
        lambda place: _iou_with(boxes.take_along_dim(place[..., None], dim=1), boxes),
        method=method,
        threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        max_per_group=max_per_group,
    )


def select_softly(
    members: Tensor,
    scores: Tensor,
    similarity_to: Callable[[Tensor], Tensor],
    *,
    method: str,
    threshold: float,
    sigma: float,
    min_score: float,
    max_per_group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The selection of soft-NMS, for any similarity; see :func:`soft_nms`.

    Args:
        members: (G, M) int64 indices of the members of each group, padded with -1.
        scores: (N,), non-negative.
        similarity_to: the similarity in [0, 1] of a member of each group, given by its place (G, 1) int64, to all
            members of the group: (G, M).
        method, threshold, sigma, min_score, max_per_group: see :func:`soft_nms`; ``threshold`` is of the similarity.

    Returns:
        (S,) int64 indices of the selected, and (S,) their lowered scores, by descending score.
    """
    _check_arguments("soft NMS", method, sigma, min_score)
    # -1 marks selected and dropped members and padding
    remaining = torch.where((members >= 0) & (scores[members] >= min_score), scores[members], -1.0)
    steps = members.shape[1] if max_per_group is None else min(max_per_group, members.shape[1])
    selected, selected_scores = [], []
    for _ in range(steps):
        best, place = remaining.max(dim=1, keepdim=True)
        selected.append(members.gather(1, place))
        selected_scores.append(best)
        similarity = similarity_to(place)
        if method == "linear":
            weight = torch.where(similarity > threshold, 1 - similarity, 1.0)
        else:
            weight = torch.exp(-similarity.square() / sigma)
        lowered = remaining * weight
        left = (remaining >= 0) & (lowered >= min_score)
        remaining = torch.where(left, lowered, -1.0).scatter(1, place, -1.0)
    kept, kept_scores = torch.cat(selected, dim=1), torch.cat(selected_scores, dim=1)
    left = kept_scores >= 0
    kept, kept_scores = kept[left], kept_scores[left]
    order = kept_scores.argsort(descending=True, stable=True)
    return kept[order], kept_scores[order]


def _check_arguments(name, method, sigma, min_score):
    if method not in SOFT_NMS_METHODS:
        raise ValueError(f"{name}: method must be 'linear' or 'gaussian', got {method!r}")
    if not sigma > 0:
        raise ValueError(f"{name}: sigma must be positive, got {sigma!r}")
    if min_score < 0:
        raise ValueError(f"{name}: min_score must not be negative, got {min_score!r}")


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
