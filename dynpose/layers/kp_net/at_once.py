"""The KP-Net operator for graphs: all networks at once, in plain operators that every runtime has.

The number of networks, of images and of cells may be unknown while the graph is recorded, so that there are no chunks
and no loop over images. Memory grows with the number of networks: the largest maps are the N x K heatmaps.

The products are those of :mod:`reference`, with the relative coordinates and the biases folded into the weights. The
maps of many networks do not fit a cache: their products and the passes over them bound the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dynpose.layers.map_peaks import map_peaks_in_plain_operators

from .reference import _cell_coordinates, _fold
from .spec import KPNetPeaks

if TYPE_CHECKING:
    from .nets import KPNets


def kp_net_heatmaps(nets: KPNets) -> torch.Tensor:
    """(N, K, H, W) logits. See :func:`dynpose.layers.kp_net.kp_net_heatmaps`."""
    features, params, locations, coord_scale = _in_float32(nets.features, nets.params, nets.locations, nets.coord_scale)
    height, width = nets.size
    weights = _fold(params, locations, coord_scale, nets.spec, nets.stride, height, width)
    maps = weights[0] @ _inputs(features)[nets.image_index]
    for weight in weights[1:]:
        maps = weight @ maps.relu()
    return maps.unflatten(2, (height, width))


def kp_net_peaks(nets: KPNets) -> KPNetPeaks:
    """Peak of every heatmap, (N, K) each. See :func:`dynpose.layers.kp_net.kp_net_peaks`."""
    return KPNetPeaks(*map_peaks_in_plain_operators(kp_net_heatmaps(nets)))


def _inputs(features):
    """The networks' input, (B, C + 3, H * W): the features, the cells' coordinates and ones."""
    shared = torch.cat([_cell_coordinates(features[0]), torch.ones_like(features[0, :1])])
    return torch.cat([features, shared.expand(features.shape[0], -1, -1, -1)], dim=1).flatten(2)


def _in_float32(*tensors):
    dtype = torch.float64 if torch.float64 in {tensor.dtype for tensor in tensors[:2]} else torch.float32
    return [tensor.to(dtype) for tensor in tensors]
