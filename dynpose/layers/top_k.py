"""The largest values of each row, in an order that does not depend on the device or the runtime."""

import torch
from torch import Tensor

__all__ = ["stable_descending", "stable_top_k", "top_of_rows"]


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
    size = values.shape[1]
    position = torch.arange(size, device=values.device)
    index = torch.where(_is_top(_without_nan(values), k), position, size).topk(k, dim=1, largest=False).values
    index = index.gather(1, stable_descending(values.gather(1, index)))
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


def top_of_rows(values: Tensor, limit: int) -> Tensor:
    """Mark the largest values of each row; among equal values, those of the lowest indices.

    Args:
        values: (R, L), above minus infinity; NaN counts as larger than any number.
        limit: maximum number of values marked per row; may exceed L.

    Returns:
        (R, L) bool.
    """
    values = _without_nan(values)
    filled = torch.cat([values, values.new_full((values.shape[0], limit), -float("inf"))], dim=1)
    return _is_top(filled, limit)[:, : values.shape[1]]


def _is_top(values, k):
    """Mark the k largest of each row, from the values of top-k alone: every runtime has the same ones."""
    last = values.topk(k, dim=1).values[:, -1:]
    above, equal = values > last, values == last
    room = k - above.sum(dim=1, keepdim=True)
    return above | (equal & (equal.to(torch.int64).cumsum(dim=1) <= room))


def _without_nan(values):
    return torch.where(values.isnan(), float("inf"), values)
