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
    return cell_positions(index, width).float() * stride + stride // 2


def cell_positions(index: Tensor, width: int) -> Tensor:
    """Columns and rows of cells, from their flat indices.

    Args:
        index: (...) int64 flat index v * width + u.
        width: cells per row of the map.

    Returns:
        (..., 2) int64 u and v.
    """
    row = torch.div(index, width, rounding_mode="floor")
    # onnxscript has no remainder by a symbolic width
    return torch.stack([index - row * width, row], dim=-1)
