"""Ranking within groups, without a loop over the groups."""

import torch
from torch import Tensor


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
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    sorted_groups, position = group[order], torch.arange(len(order), device=order.device)
    # the first position of each run of equal groups; unlike bincount, this does not wait for a GPU
    is_start = torch.ones_like(order, dtype=torch.bool)
    is_start[1:] = sorted_groups[1:] != sorted_groups[:-1]
    first = torch.where(is_start, position, 0).cummax(dim=0).values
    rank = torch.empty_like(order)
    rank[order] = position - first
    return rank
