"""The cells of feature maps: cell (u, v) of stride s has its centre at pixel (u * s + s // 2, v * s + s // 2)."""

import torch
from torch import Tensor


def cell_centers(index: Tensor, stride: int, width: int) -> Tensor:
    """Centres of cells, from their flat indices.

    Args:
        index: (...) int64 flat index v * width + u.
        stride: pixels per cell.
        width: cells per row of the map.

    Returns:
        (..., 2) x and y, input pixels.
    """
    cell = torch.stack([index % width, torch.div(index, width, rounding_mode="floor")], dim=-1)
    return cell.float() * stride + stride // 2
