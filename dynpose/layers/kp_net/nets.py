"""Generated networks and their feature maps: the argument of the KP-Net operator.

A KP-Net (FCPose section 3.1, InsPose section 3.2) is a small network of 1x1 convolutions whose weights are generated
per instance. It runs over the whole feature map of the instance's image, with the offset of each cell from the
instance's location as two additional input channels:

    sign * ((u * stride + stride // 2, v * stride + stride // 2) - location) / coord_scale

for the cell in column u and row v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.checkpoint import checkpoint

from dynpose.layers.backends import check_backend
from dynpose.layers.cells import cell_centers
from dynpose.layers.tensor_checks import check_floating_point, check_index, check_positive_int, check_tensor
from dynpose.utils.exporting import is_recording

from .operator import kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from .spec import KPNetPeaks, KPNetSpec

# Maximum values per map held at once where whole heatmaps are needed (256 MB of float32)
_MAX_MAP_VALUES = 2**26


@dataclass(frozen=True, eq=False)
class KPNets:
    """N generated networks over the maps of B images.

    The values of ``image_index`` are checked only on the CPU and outside ``torch.compile``, to avoid synchronising with
    a CUDA device. Nothing is checked while a graph is recorded.

    Attributes:
        features: (B, C, H, W) floating-point maps.
        params: (N, P) parameters of the networks, packed as described in :class:`KPNetSpec`.
        image_index: (N,) int64 in [0, B), the image that each instance belongs to, in any order.
        locations: (N, 2) location (x, y) that generated each network, pixels of the model's input.
        coord_scale: (N,) pixels that the relative coordinates are divided by.
        spec: the shape of the networks.
        stride: pixels per cell of ``features``.
        backend: name of the implementation: "torch" is plain PyTorch, "native" compiled code for CPUs in float32,
            "triton" the fused kernels for CUDA (compute capability 8.0 or more, float32, bfloat16 or float16 features,
            at most 64 channels and 4 layers), "auto" the best for the device; or a registered one, see
            :mod:`dynpose.layers.backends`. If it cannot run, "torch" runs instead, with a single warning.

    Raises:
        ValueError: if a shape, device or value is invalid, or the backend is unknown.
        TypeError: if a dtype is invalid.
    """

    features: torch.Tensor
    params: torch.Tensor
    image_index: torch.Tensor
    locations: torch.Tensor
    coord_scale: torch.Tensor
    spec: KPNetSpec
    stride: int
    backend: str = "auto"

    def __post_init__(self):
        if not is_recording():  # a graph's sizes are symbols
            self._check()

    def _check(self):
        features, params, spec = self.features, self.params, self.spec
        if features.dim() != 4 or features.shape[1] != spec.in_channels or 0 in features.shape:
            raise ValueError(f"features: expected shape (B, {spec.in_channels}, H, W), got {tuple(features.shape)}")
        check_floating_point("features", features)
        if params.dim() != 2 or params.shape[1] != spec.num_params:
            raise ValueError(f"params: expected shape (N, {spec.num_params}) for {spec}, got {tuple(params.shape)}")
        num_nets, like = len(params), ("features", features)
        check_tensor("params", params, (num_nets, spec.num_params), like)
        check_tensor("image_index", self.image_index, (num_nets,), like, torch.int64)
        check_tensor("locations", self.locations, (num_nets, 2), like)
        check_tensor("coord_scale", self.coord_scale, (num_nets,), like)
        check_index("image_index", self.image_index, "B", len(features))
        check_positive_int("stride", self.stride)
        check_backend(self.backend)

    def __len__(self) -> int:
        return len(self.params)

    def __getitem__(self, chosen: slice | torch.Tensor) -> KPNets:
        """Select networks by slice, mask or index tensor."""
        names = ("params", "image_index", "locations", "coord_scale")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the maps."""
        height, width = self.features.shape[-2:]
        return height, width

    def heatmaps(self) -> torch.Tensor:
        """(N, K, H, W) logits, see :func:`~dynpose.layers.kp_net_heatmaps`."""
        return kp_net_heatmaps(self)

    def peaks(self) -> KPNetPeaks:
        """The highest cell of every heatmap, see :func:`~dynpose.layers.kp_net_peaks`."""
        return kp_net_peaks(self)

    def cross_entropy(self, targets: torch.Tensor) -> torch.Tensor:
        """(N, K) losses against the cells ``targets``, see :func:`~dynpose.layers.kp_net_cross_entropy`."""
        return kp_net_cross_entropy(self, targets)

    def cell_inputs(self, cells: torch.Tensor) -> torch.Tensor:
        """Gather the networks' inputs at given cells.

        Args:
            cells: (N, K) int64 flat indices into the map.

        Returns:
            (N, K, C + 2), features and relative coordinates in the order of the spec.
        """
        features = self.features.flatten(2).transpose(1, 2)[self.image_index[:, None], cells].float()
        coords = cell_centers(cells, self.stride, self.size[1]) - self.locations[:, None]
        coords = coords / self.coord_scale[:, None, None] * self.spec.coords_sign
        pieces = [coords, features] if self.spec.coords_position == "first" else [features, coords]
        return torch.cat(pieces, dim=-1)

    def map_in_chunks(
        self, function: Callable[..., tuple[torch.Tensor, ...]], *per_net: torch.Tensor, values_per_cell: int = 1
    ) -> tuple[torch.Tensor, ...]:
        """Apply a function of whole heatmaps to chunks of networks, with bounded memory.

        In training, the backward pass recomputes the maps of a chunk instead of storing them.

        Args:
            function: (nets, *values) -> tuple of tensors with the networks as first axis.
            *per_net: tensors with the networks as first axis, split likewise.
            values_per_cell: cells per cell of the map after ``function`` up-samples it.

        Returns:
            The concatenated results of all chunks. A recorded graph has one chunk.
        """
        if is_recording():  # the number of networks is unknown
            return function(self, *per_net)
        values_per_net = self.spec.num_keypoints * self.size[0] * self.size[1] * values_per_cell
        step = max(1, _MAX_MAP_VALUES // values_per_net)
        if len(self) <= step:
            return function(self, *per_net)
        results = []
        for start in range(0, len(self), step):
            chunk = slice(start, start + step)
            arguments = (self[chunk], *(value[chunk] for value in per_net))
            if torch.is_grad_enabled():
                results.append(checkpoint(function, *arguments, use_reentrant=False))
            else:
                results.append(function(*arguments))
        return tuple(torch.cat(pieces) for pieces in zip(*results))
