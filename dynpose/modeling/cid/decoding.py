"""Decoding of keypoints from the people's heatmaps.

Axes: N people, K keypoints, H x W cells of stride s.
"""

import torch
from torch import Tensor

from .abstraction import columns_and_rows, own_cells, smooth


def decode_keypoints(
    heatmaps: Tensor, sizes: Tensor, scores: Tensor, stride: int, *, smoothing: int = 3, origin: float = 0.0
) -> Tensor:
    """Decode keypoints from heatmaps: the highest cell, shifted a quarter of a cell towards its higher neighbour.

    The maps are first smoothed: averaged with their mean over a window of ``smoothing`` cells a side. A cell at the
    image's border is not shifted along that axis.

    Args:
        heatmaps (Tensor): (N, K, H, W), above zero.
        sizes (Tensor): (N or 1, 2) int64, height and width of each person's image in cells; the rest is padding, where
            no keypoint can be.
        scores (Tensor): (N,) scores of the people's centres.
        stride (int): s, pixels.
        smoothing (int): window size in cells, odd.
        origin (float): o, origin of the first cell, continuous input pixels; see
            :func:`~dynpose.modeling.cid.targets.build_targets`.

    Returns:
        Tensor: (N, K, 3) x, y in continuous input pixels, where cell (u, v) has its centre at (u s + s // 2 + o,
        v s + s // 2 + o), and the smoothed heatmap's value times the centre's score.
    """
    width = heatmaps.shape[-1]
    sizes = sizes.to(heatmaps.device)
    # Smoothing raises padding next to the image, but the nearest cell of the image is higher: it is above zero before,
    # and its window has all the cells of the image that the window in the padding has.
    smoothed = smooth(heatmaps * own_cells(sizes, heatmaps)[:, None].to(heatmaps.dtype), smoothing)
    values, index = _highest(smoothed)
    smoothed = smoothed.flatten(2)
    u, v = columns_and_rows(index, heatmaps)
    last_v, last_u = (sizes - 1)[..., None].unbind(dim=1)
    shift_u = _towards_higher(smoothed, index, step=1, inside=(u > 0) & (u < last_u))
    shift_v = _towards_higher(smoothed, index, step=width, inside=(v > 0) & (v < last_v))
    cells = torch.stack([u + shift_u / 4, v + shift_v / 4], dim=-1)
    return torch.cat([cells * stride + (stride // 2 + origin), (values * scores[:, None])[..., None]], dim=-1)


def _highest(maps):
    """Value and flat index (N, K) of the first highest cell of maps (N, K, H, W).

    The search for the row, then for the column in it, takes a CPU a sixth of the time of one for the cell.
    """
    of_rows = maps.amax(dim=3)
    values, row = of_rows.max(dim=2)
    cells = maps.gather(2, row[..., None, None].expand(-1, -1, 1, maps.shape[3]))[:, :, 0]
    return values, row * maps.shape[3] + cells.max(dim=2).indices


def _towards_higher(maps, index, *, step, inside):
    """Sign (N, K) of the difference of the neighbours ``step`` away in flat maps; 0 if one is outside."""
    index = torch.where(inside, index, 0)[..., None]
    after = maps.gather(2, (index + step).clamp(max=maps.shape[2] - 1))
    before = maps.gather(2, (index - step).clamp(min=0))
    return (after - before).sign()[..., 0] * inside
