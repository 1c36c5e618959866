"""The branch that computes the feature map F (FCPose section 3.1), and the release's auxiliary heatmaps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dynpose.layers.upsample import aligned_upsample

# Values of the widest up-sampled map that are held at once (64 MiB of float32), and the least rows of a strip
_MAX_FINE_VALUES, _MIN_STRIP_ROWS = 2**24, 8


def conv_norm_relu(in_channels: int, out_channels: int, norm: str) -> Conv2d:
    """3x3 convolution, normalisation, ReLU; He initialisation (FCPose section 4)."""
    conv = Conv2d(
        in_channels,
        out_channels,
        3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class BasisBranch(nn.Module):
    """Merges several pyramid levels at the finest stride and applies convolutions.

    Args:
        in_features: names of the input levels, finest first.
        in_channels: their channels.
        strides: their strides, pixels; each a multiple of the first.
        conv_dim: channels of the convolutions.
        num_convs: 3x3 convolutions after merging.
        norm: their normalisation.
        out_channels: channels of the final 1x1 convolution: those of F and, if shared, of the offsets.

    Raises:
        ValueError: if a stride is not a multiple of the first.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        in_channels: Sequence[int],
        strides: Sequence[int],
        conv_dim: int,
        num_convs: int,
        norm: str,
        out_channels: int,
    ):
        super().__init__()
        if any(stride % strides[0] for stride in strides):
            raise ValueError(f"strides: expected multiples of the first, got {list(strides)}")
        self.in_features = list(in_features)
        self.factors = [stride // strides[0] for stride in strides]
        self.lateral = nn.ModuleList(conv_norm_relu(channels, conv_dim, norm) for channels in in_channels)
        self.tower = nn.Sequential(*(conv_norm_relu(conv_dim, conv_dim, norm) for _ in range(num_convs)))
        self.project = nn.Conv2d(conv_dim, out_channels, 1)
        nn.init.kaiming_normal_(self.project.weight, nonlinearity="linear")
        nn.init.zeros_(self.project.get_parameter("bias"))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the merged levels and their projection.

        Args:
            features: (B, C_l, H_l, W_l) levels, finest first; H_0 = H.

        Returns:
            The merged levels (B, conv_dim, H, W), and the projection (B, out_channels, H, W).
        """
        finest, *coarser = (
            aligned_upsample(lateral(feature), factor)
            for lateral, feature, factor in zip(self.lateral, features, self.factors)
        )
        merged = sum(coarser, start=finest)
        return merged, self.project(self.tower(merged))


class AuxHeatmaps(nn.Module):
    """Multi-person heatmaps at F's stride and a quarter of it, supervised in training only (release).

    Args:
        conv_dim: channels of the merged levels.
        norm: normalisation.
        num_keypoints: K.
    """

    def __init__(self, *, conv_dim: int, norm: str, num_keypoints: int):
        super().__init__()
        self.tower = nn.Sequential(*(conv_norm_relu(conv_dim, conv_dim, norm) for _ in range(2)))
        self.coarse = nn.Conv2d(conv_dim, num_keypoints, 1)
        self.upsample = nn.ConvTranspose2d(conv_dim + num_keypoints, conv_dim, 8, stride=4, padding=2)
        self.fine = nn.Conv2d(conv_dim, num_keypoints, 3, padding=1)

    def forward(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Predict both heatmaps.

        Args:
            merged: (B, conv_dim, H, W), from :class:`BasisBranch`.

        Returns:
            (B, K, 4 H, 4 W) and (B, K, H, W).
        """
        features = self.tower(merged)
        coarse = self.coarse(features)
        return self._fine_in_strips(torch.cat([features, coarse], dim=1)), coarse

    def _fine_in_strips(self, features):
        """The fine heatmaps of (B, C, H, W), in strips of rows; the backward pass recomputes a strip's maps."""
        batch, _, height, width = features.shape
        factor = self.upsample.stride[0]
        rows = max(_MIN_STRIP_ROWS, _MAX_FINE_VALUES // (batch * self.fine.in_channels * factor**2 * width))
        if rows >= height:
            return self._fine(features)
        strips = []
        for start in range(0, height, rows):
            # a row more on each side: what the transposed convolution and the convolution after it reach
            first, end = max(0, start - 1), min(height, start + rows + 1)
            strip = features[:, :, first:end]
            if torch.is_grad_enabled():
                fine = checkpoint(self._fine, strip, use_reentrant=False, preserve_rng_state=False)
            else:
                fine = self._fine(strip)
            strips.append(fine[:, :, (start - first) * factor :][:, :, : rows * factor])
        return torch.cat(strips, dim=2)

    def _fine(self, features):
        return self.fine(F.relu_(self.upsample(features)))
