"""NMS of a batch, and soft-NMS (Bodla et al., ICCV 2017) on tensors, for many images and classes at once.

Axes: B images, N boxes, G groups that do not compete with each other, M boxes in the largest group.
"""

from collections.abc import Callable

import torch
from detectron2.layers import batched_nms
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torchvision.ops import nms

from dynpose.utils.exporting import is_exporting, is_recording

from .ranking import first_in_group, order_in_groups

__all__ = ["SOFT_NMS_METHODS", "nms_of_images", "select_softly", "soft_nms"]

SOFT_NMS_METHODS = ("linear", "gaussian")


def nms_of_images(
    boxes: Tensor,
    scores: Tensor,
    image: Tensor,
    classes: Tensor,
    *,
    num_images: int,
    iou_threshold: float,
    max_per_image: int,
) -> Tensor:
    """Apply NMS per image and class, and keep the best boxes of each image.

    Args:
        boxes: (N, 4) XYXY, finite.
        scores: (N,).
        image: (N,) int64 in [0, B).
        classes: (N,) int64, non-negative.
        num_images: B.
        iou_threshold: IoU above which the lower-scored box is dropped.
        max_per_image: maximum number of boxes kept per image.

    Returns:
        (S,) int64 indices of the kept boxes, by image and then by descending score; the earlier one first among equal
        scores.

    Example::

        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
        >>> image, classes = torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.int64)
        >>> scores = torch.tensor([0.5, 0.9, 0.4])
        >>> nms_of_images(boxes, scores, image, classes, num_images=2, iou_threshold=0.5, max_per_image=100)
        tensor([1, 2])
    """
    if is_recording():
        kept = _nms_at_once(boxes, scores, image, classes, iou_threshold)
        return kept[first_in_group(image[kept], num_images, max_per_image)]
    kept_of_images = []
    for number in range(num_images):
        here = (image == number).nonzero().squeeze(1)
        kept = batched_nms(boxes[here], scores[here], classes[here], iou_threshold)
        kept_of_images.append(here[kept[:max_per_image]])
    return torch.cat(kept_of_images)


def _nms_at_once(boxes, scores, image, classes, iou_threshold):
    """NMS of all images and classes as one operator, for graphs: kept indices by image and descending score.

    Boxes of different images and classes are moved apart. They arrive in order, with distinct scores, so that runtimes
    cannot differ in ties.
    """
    order = order_in_groups(scores, image)
    values = torch.cat([boxes.flatten(), boxes.new_zeros(1)])  # ONNX has no maximum of nothing
    extent = values.amax(dim=0) - values.amin(dim=0) + 1
    corner = torch.stack([image, classes], dim=1)[order] * extent
    ranked = torch.arange(boxes.shape[0], 0, -1, device=boxes.device).to(boxes.dtype)
    kept = nms(boxes[order] + corner.repeat(1, 2), ranked, iou_threshold)
    return order[kept.sort().values]


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
    num_groups: int | None = None,
    group_limit: int | None = None,
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
        num_groups: groups are 0..num_groups - 1; None = unknown. A graph needs it and ``max_per_group``, which is the
            largest number of its steps.
        group_limit: M, no group has more boxes; None = unknown. ``torch.export`` needs it.

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
    if is_recording():
        if num_groups is None or max_per_group is None or group_limit is None:
            raise ValueError("soft_nms: a graph needs num_groups, max_per_group and group_limit")
        members = _padded_members(groups, num_groups, group_limit)
        # what padding refers to
        boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
        scores = torch.cat([scores, scores.new_full((1,), -1.0)])
    elif not len(boxes):
        return groups.new_zeros(0), scores
    else:
        members = _members_of_groups(groups)
    boxes = boxes[members]
    return select_softly(
        members,
        scores,
        lambda place: _iou_with(boxes.gather(1, place[..., None].expand(-1, -1, 4)), boxes),
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
    steps = members.shape[1] if max_per_group is None else max_per_group

    def step(remaining):
        """One box of each group, its score, and the scores that remain."""
        best, place = remaining.max(dim=1, keepdim=True)
        similarity = similarity_to(place)
        if method == "linear":
            weight = torch.where(similarity > threshold, 1 - similarity, 1.0)
        else:
            weight = torch.exp(-similarity.square() / sigma)
        lowered = remaining * weight
        left = (remaining >= 0) & (lowered >= min_score)
        return members.gather(1, place), best, torch.where(left, lowered, -1.0).scatter(1, place, -1.0)

    if is_exporting():
        kept, kept_scores = _repeat_in_graph(step, remaining, steps)
    else:
        if not is_recording():  # in a trace, the number of members is unknown
            steps = min(steps, members.shape[1])
        kept, kept_scores = _repeat(step, remaining, steps)
    left = kept_scores >= 0
    kept, kept_scores = kept[left], kept_scores[left]
    order = order_in_groups(kept_scores)
    return kept[order], kept_scores[order]


def _repeat(step, remaining, steps):
    """Apply ``step`` to (G, M) scores: (G, steps) selected members and their scores."""
    selected, selected_scores = [], []
    for _ in range(steps):
        chosen, best, remaining = step(remaining)
        selected.append(chosen)
        selected_scores.append(best)
    return torch.cat(selected, dim=1), torch.cat(selected_scores, dim=1)


def _repeat_in_graph(step, remaining, steps):
    """:func:`_repeat` as a loop of a graph, which ends when no scores remain."""
    number = torch.arange(steps, device=remaining.device)

    def advance(done, remaining, selected, selected_scores):
        chosen, best, remaining = step(remaining)
        is_now = number == done
        return (
            done + 1,
            remaining,
            torch.where(is_now, chosen, selected),
            torch.where(is_now, best, selected_scores),
        )

    def is_left(done, remaining, selected, selected_scores):
        return (done < steps) & (remaining >= 0).any()

    # -1 = nothing selected
    scores = (remaining[:, :1] * 0 - 1).expand(-1, steps).clone()
    selected = scores.to(torch.int64)
    done = torch.zeros((), dtype=torch.int64, device=remaining.device)
    _, _, selected, scores = while_loop(is_left, advance, (done, remaining, selected, scores))
    return selected, scores


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


def _padded_members(groups, num_groups, limit):
    """(G, limit) indices of the boxes of each group, in order, for graphs; -1 elsewhere."""
    position = torch.arange(groups.shape[0], device=groups.device)
    order = (groups * groups.shape[0] + position).sort().indices  # distinct keys: ONNX has no stable sort
    group = torch.arange(num_groups, device=groups.device)[:, None]
    start = (groups < group).sum(dim=1, keepdim=True)
    count = (groups == group).sum(dim=1, keepdim=True)
    place = torch.arange(limit, device=groups.device)
    padded = torch.cat([order, order.new_full((1,), -1)])
    return torch.where(place < count, padded[torch.where(place < count, start + place, 0)], -1)


def _iou_with(chosen, boxes):
    """IoU of one box per group, (G, 1, 4), with all boxes of the group, (G, M, 4): (G, M)."""
    low = torch.maximum(chosen[..., :2], boxes[..., :2])
    high = torch.minimum(chosen[..., 2:], boxes[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = _areas(chosen) + _areas(boxes) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def _areas(boxes):
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
