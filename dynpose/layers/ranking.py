"""Ranking within groups, without a loop over the groups. Among equal scores, the earlier item ranks higher."""

from __future__ import annotations

import torch
from torch import Tensor

from dynpose.utils.exporting import is_recording

__all__ = ["first_in_group", "order_in_groups", "rank_in_group"]


def rank_in_group(scores: Tensor, group: Tensor) -> Tensor:
    """Rank every item within its group, best first.

    Args:
        scores: (N,).
        group: (N,) int64, non-negative.

    Returns:
        (N,) int64; 0 = the best of its group. Among equal scores the earlier item ranks higher.

    Example::

        >>> rank_in_group(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0, 0, 1]))
        tensor([1, 0, 0])
    """
    order = _stable_order(scores, group)
    sorted_groups, position = group[order], torch.arange(len(order), device=order.device)
    # the first position of each run of equal groups; unlike bincount, this does not wait for a GPU
    is_start = torch.ones_like(order, dtype=torch.bool)
    is_start[1:] = sorted_groups[1:] != sorted_groups[:-1]
    first = torch.where(is_start, position, 0).cummax(dim=0).values
    rank = torch.empty_like(order)
    rank[order] = position - first
    return rank


def order_in_groups(scores: Tensor, group: Tensor | None = None) -> Tensor:
    """Sort items by group, and by descending score within a group; equal items keep their order.

    Args:
        scores: (N,); NaN counts as larger than any number.
        group: (N,) int64, non-negative; None = one group.

    Returns:
        (N,) int64 indices. A recorded graph sorts up to 46,340 items in runtimes that compute int64 in 32 bits.

    Example::

        >>> order_in_groups(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([1, 1, 0]))
        tensor([2, 1, 0])
    """
    return _order_without_stable_sort(scores, group) if is_recording() else _stable_order(scores, group)


def first_in_group(group: Tensor, num_groups: int, limit: int) -> Tensor:
    """Mark the first items of each group.

    Args:
        group: (N,) int64, ascending.
        num_groups: G; groups are 0..G - 1.
        limit: maximum number of items marked per group.

    Returns:
        (N,) bool.
    """
    start = (group < torch.arange(num_groups, device=group.device)[:, None]).sum(dim=1)
    return torch.arange(group.shape[0], device=group.device) - start[group] < limit


def _stable_order(scores, group):
    order = scores.argsort(descending=True, stable=True)
    return order if group is None else order[group[order].argsort(stable=True)]


def _order_without_stable_sort(scores, group):
    """:func:`order_in_groups` for graphs.

    Runtimes order equal keys differently, so that only the sorted keys of a first sort are used: equal scores share a
    number. The other keys are distinct.
    """
    scores = torch.where(scores.isnan(), float("inf"), scores)
    size, position = scores.shape[0], torch.arange(scores.shape[0], device=scores.device)
    in_order, order = scores.sort(descending=True)
    is_lower = in_order != in_order[(position - 1).clamp(min=0)]
    number = is_lower.to(torch.int64).cumsum(dim=0)
    order = order[(number * size + order).sort().indices]
    return order if group is None else order[(group[order] * size + position).sort().indices]
