"""The largest values of each row, in an order that does not depend on the device or the runtime."""

import torch
from torch import Tensor

__all__ = ["stable_descending", "stable_top_k"]


def stable_top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the ``k`` largest values of each row; among equal values, those of the lowest indices.

    ``torch.topk`` and the runtimes of exported models choose and order equal values differently. Only the values that
    topk gives are used here, which are the same everywhere.

    Args:
        values: (B, M); NaN counts as larger than any number.
        k: at most M.

    Returns:
        (B, k) values in descending order, equal ones by ascending index, and (B, k) int64 indices.

    Example::

        >>> stable_top_k(torch.tensor([[0.5, 0.9, 0.5, 0.5]]), 3)
        (tensor([[0.9000, 0.5000, 0.5000]]), tensor([[1, 0, 2]]))
    """
    keys = _without_nan(values)
    best = keys.topk(k, dim=1).values
    last = best[:, -1:]
    is_last = keys == last
    # of the values equal to the last, as many as fit
    fits = is_last.to(torch.int64).cumsum(dim=1) <= (best == last).sum(dim=1, keepdim=True)
    size = values.shape[1]
    position = torch.arange(size, device=values.device)
    chosen = torch.where((keys > last) | (is_last & fits), position, size)
    index = chosen.topk(k, dim=1, largest=False).values
    index = index.gather(1, stable_descending(keys.gather(1, index)))
    return values.gather(1, index), index


def stable_descending(values: Tensor) -> Tensor:
    """Indices that sort each row in descending order; equal values keep their order.

    The position of a value is the number of values before it. It is counted, because ONNX has no stable sort: the cost
    is quadratic in the length of a row.

    Args:
        values: (..., M); NaN counts as larger than any number.

    Returns:
        (..., M) int64.

    Example::

        >>> stable_descending(torch.tensor([0.2, 0.7, 0.2]))
        tensor([1, 0, 2])
    """
    keys = _without_nan(values)
    index = torch.arange(values.shape[-1], device=values.device).expand_as(values)
    earlier = index[..., None, :] < index[..., None]
    one, other = keys[..., None], keys[..., None, :]
    position = ((other > one) | ((other == one) & earlier)).sum(dim=-1)
    return torch.zeros_like(index).scatter(-1, position, index)


def _without_nan(values):
    return torch.where(values.isnan(), float("inf"), values)
