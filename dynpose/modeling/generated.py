"""The KP-Nets that were generated for some people, with everything the operator needs to run them."""

from dataclasses import dataclass, replace

import torch
from torch.utils.checkpoint import checkpoint

from dynpose.layers import KPNetSpec, kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from dynpose.modeling.keypoint_maps import cell_centers

# Values of the largest map that exist at once where whole heatmaps are needed (256 MB of float32)
_MAX_MAP_VALUES = 2**26


@dataclass
class GeneratedKPNets:
    """N generated networks (FCPose section 3.1, InsPose section 3.2) and the map F that they run over.

    Attributes:
        features (Tensor): F, (B, C, H, W).
        params (Tensor): (N, P).
        refinement_params (Tensor): (N, R), generated for FCPose's refinement; R = 0 where nothing is.
        image_index (Tensor): (N,) int64.
        locations (Tensor): (N, 2), where each was generated, input pixels.
        coord_scale (Tensor): (N,), what relative coordinates are divided by, pixels.
        spec (KPNetSpec): the networks' shape.
        stride (int): of F, pixels.
        backend (str): of the operator.
    """

    features: torch.Tensor
    params: torch.Tensor
    refinement_params: torch.Tensor
    image_index: torch.Tensor
    locations: torch.Tensor
    coord_scale: torch.Tensor
    spec: KPNetSpec
    stride: int
    backend: str = "auto"

    def __len__(self):
        return len(self.params)

    @property
    def size(self):
        """(H, W) of F."""
        return tuple(self.features.shape[-2:])

    def __getitem__(self, chosen):
        """Choose some of the networks by slice, mask or index."""
        names = ("params", "refinement_params", "image_index", "locations", "coord_scale")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def _arguments(self):
        return (
            self.features,
            self.params,
            self.image_index,
            self.locations,
            self.coord_scale,
            self.spec,
            self.stride,
        )

    def heatmaps(self):
        """Run them all: (N, K, H, W) logits."""
        return kp_net_heatmaps(*self._arguments(), backend=self.backend)

    def peaks(self):
        """Find the highest cell of every heatmap: :class:`~dynpose.layers.KPNetPeaks`."""
        return kp_net_peaks(*self._arguments(), backend=self.backend)

    def cross_entropy(self, targets):
        """Softmax cross-entropy with the cells ``targets`` (N, K), negative = ignore: (N, K)."""
        return kp_net_cross_entropy(*self._arguments(), targets=targets, backend=self.backend)

    def cell_inputs(self, cells):
        """Read what the networks are given at some cells.

        Args:
            cells (Tensor): (N, K) int64 flat index in F.

        Returns:
            Tensor: (N, K, C + 2), features and relative coordinates in the spec's order.
        """
        features = self.features.flatten(2).transpose(1, 2)[self.image_index[:, None], cells].float()
        coords = cell_centers(cells, self.stride, self.size[1]) - self.locations[:, None]
        coords = coords / self.coord_scale[:, None, None] * self.spec.coords_sign
        pieces = [coords, features] if self.spec.coords_position == "first" else [features, coords]
        return torch.cat(pieces, dim=-1)

    def map_in_chunks(self, function, *per_net, values_per_cell=1):
        """Apply a function of whole heatmaps to a few networks at a time, with bounded memory.

        In training the maps of a chunk are computed again in the backward pass rather than kept.

        Args:
            function (callable): (nets, *values) -> tuple of Tensors with the networks as first axis.
            per_net (Tensor): values with the networks as first axis, split alike.
            values_per_cell (int): cells that ``function`` makes of one cell of F, for an up-sampling one.

        Returns:
            tuple[Tensor]: the results of all chunks.
        """
        values_per_net = self.spec.num_keypoints * self.size[0] * self.size[1] * values_per_cell
        step = max(1, _MAX_MAP_VALUES // values_per_net)
        if len(self) <= step:
            return function(self, *per_net)
        results = []
        for start in range(0, len(self), step):
            chunk = slice(start, start + step)
            arguments = (function, self[chunk], *(value[chunk] for value in per_net))
            if torch.is_grad_enabled():
                results.append(checkpoint(_call, *arguments, use_reentrant=False))
            else:
                results.append(_call(*arguments))
        return tuple(torch.cat(pieces) for pieces in zip(*results))


def kp_net_spec(cfg, num_keypoints):
    """Read the KP-Net's shape from ``cfg.MODEL.KP_NET``.

    Args:
        cfg (CfgNode): the config.
        num_keypoints (int): K.

    Returns:
        KPNetSpec
    """
    kp_net = cfg.MODEL.KP_NET
    return KPNetSpec(
        in_channels=kp_net.IN_CHANNELS,
        width=kp_net.WIDTH,
        depth=kp_net.DEPTH,
        num_keypoints=num_keypoints,
        coords_position=kp_net.COORDS_POSITION,
        coords_sign=kp_net.COORDS_SIGN,
    )


def _call(function, *arguments):
    return function(*arguments)
