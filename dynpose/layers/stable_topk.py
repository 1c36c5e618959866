"""The largest values of each row; among equal values, those of the lowest index."""

import torch
from torch import Tensor


def stable_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k largest values of each row.

    ``torch.topk`` and the runtimes of exported files order equal values differently. Here the order is defined.

    Args:
        values: (B, N).
        k: at most N.

    Returns:
        The values (B, k) in descending order, and their indices (B, k) int64. Among equal values, the lower index comes
        first. In an exported graph, the indices of NaN are undefined.

    Example::

        >>> stable_topk(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 2)
        (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    if getattr(torch.compiler, "is_exporting", bool)() or torch.jit.is_tracing():
        return _comparing_topk(values, k)
    values, indices = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], indices[:, :k]


def _comparing_topk(values, k):
    """:func:`stable_topk` without a stable sort, which ONNX lacks.

    The sorted values do not depend on the order of equal ones. Each takes the index of its n-th occurrence in the row,
    where n - 1 equal values precede it in the sorted order.
    """
    best = values.topk(k, dim=1).values
    place = torch.arange(k, device=values.device)
    num_before = ((best[:, :, None] == best[:, None, :]) & (place[:, None] > place)).sum(dim=2)
    is_equal = best[:, :, None] == values[:, None, :]
    occurrence = is_equal.to(torch.int64).cumsum(dim=2)
    is_chosen = is_equal & (occurrence == num_before[:, :, None] + 1)
    return best, is_chosen.to(torch.int64).argmax(dim=2)
