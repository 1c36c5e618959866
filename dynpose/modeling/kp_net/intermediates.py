"""Intermediate results of models with KP-Nets, for figures (:mod:`dynpose.modeling.kp_net.figures`).

Axes: N generated networks, K keypoints, H x W cells of the heatmaps, D cells around a peak.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dynpose.layers.cells import cell_positions
from dynpose.layers.map_peaks import map_peaks

# Cells on each side of a peak whose offsets are given: the radius of InsPose's disk (section 4)
_REACH = 2


def heatmap_intermediates(logits: Tensor, stride: int, center: float) -> dict[str, Tensor]:
    """Describe heatmaps.

    Args:
        logits: (N, K, H, W).
        stride: of the maps, pixels of the network's input.
        center: x and y of the first cell's centre, pixels of the network's input.

    Returns:
        ``heatmaps`` (N, K, H, W), softmax probabilities; ``peaks`` (N, K) int64, the flat index of the highest cells;
        and ``grid`` (2,), stride and centre.
    """
    return {
        "heatmaps": logits.flatten(2).softmax(dim=2).view_as(logits),
        "peaks": map_peaks(logits)[1],
        "grid": torch.tensor([float(stride), float(center)]),
    }


def offset_intermediates(maps: dict[str, Tensor], end: Callable[[Tensor], Tensor], radius: float) -> dict[str, Tensor]:
    """Describe the offsets in 5 x 5 cells around the peaks, row by row.

    Args:
        maps: of :func:`heatmap_intermediates`.
        end: (N, K) int64 cells -> (N, K, 2), the points that their offsets lead to.
        radius: around a keypoint, in which training supervises offsets; NaN = no fixed one.

    Returns:
        ``offset_starts`` and ``offset_ends`` (N, K, D, 2), the cells' centres and the points that their offsets lead
        to, NaN for cells outside the map; and ``offset_radius`` (), all in pixels of the network's input.
    """
    height, width = maps["heatmaps"].shape[2:]
    stride, center = maps["grid"].tolist()
    steps = torch.arange(-_REACH, _REACH + 1, device=maps["peaks"].device)
    # x and y, row by row
    steps = torch.cartesian_prod(steps, steps).flip(1)
    u, v = (cell_positions(maps["peaks"], width)[:, :, None] + steps).unbind(dim=3)
    inside = ((u >= 0) & (u < width) & (v >= 0) & (v < height))[..., None]
    cells = torch.where(inside[..., 0], v * width + u, 0)
    starts = torch.stack([u, v], dim=3) * stride + center
    ends = torch.stack([end(of_step) for of_step in cells.unbind(dim=2)], dim=2)
    nan = torch.tensor(float("nan"), device=cells.device)
    return {
        "offset_starts": torch.where(inside, starts, nan),
        "offset_ends": torch.where(inside, ends, nan),
        "offset_radius": torch.tensor(radius),
    }
