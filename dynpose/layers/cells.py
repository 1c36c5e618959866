"""The cells of feature maps: cell (u, v) of stride s has its centre at pixel (u * s + s // 2, v * s + s // 2)."""

import torch


def cell_centers(index, stride, width):
    """Centres of cells, from their flat indices.

    Args:
        index (Tensor): (...) int64 flat index v * width + u.
        stride (int): pixels per cell.
        width (int): cells per row of the map.

    Returns:
        Tensor: (..., 2) x and y, input pixels.
    """
    cell = torch.stack([index % width, torch.div(index, width, rounding_mode="floor")], dim=-1)
    return cell.float() * stride + stride // 2
