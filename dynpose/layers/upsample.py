"""Bilinear up-sampling in dynpose's coordinate convention."""

import torch
from torch import Tensor


def aligned_upsample(maps: Tensor, factor: int) -> Tensor:
    """Up-sample bilinearly so that cell centres keep their position in the image.

    The centre of cell (u, v) at stride s is the pixel (u * s + s // 2, v * s + s // 2). Fine cell o of stride
    s / factor lies at coarse position (o - factor // 2) / factor, which no mode of ``F.interpolate`` supports. Beyond
    the outermost centres the edge is repeated.

    Args:
        maps: (B, C, H, W).
        factor: at least 1.

    Returns:
        (B, C, H * factor, W * factor).
    """
    if factor == 1:
        return maps
    for dim in (2, 3):
        size = maps.shape[dim]
        position = (torch.arange(size * factor, device=maps.device) - factor // 2) / factor
        position = position.clamp(0, size - 1)
        low = position.long()
        high = (low + 1).clamp(max=size - 1)
        fraction = (position - low).to(maps.dtype)
        fraction = fraction[:, None] if dim == 2 else fraction
        maps = torch.lerp(maps.index_select(dim, low), maps.index_select(dim, high), fraction)
    return maps
