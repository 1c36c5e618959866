"""InsPose's per-image branches on P3: features for the KP-Nets, disk offsets, auxiliary heatmaps.

Axes: B images, C channels of P3, K keypoints, H x W cells of P3.
"""

import math

from detectron2.layers import Conv2d
from torch import Tensor, nn

from dynpose.modeling.fcos import conv_tower


class KeypointFeatures(nn.Module):
    """The keypoint feature branch, which computes F_kp (section 3.2).

    Args:
        in_channels: C.
        conv_dim: channels of the 3x3 convolutions.
        num_convs: number of 3x3 convolutions.
        norm: their normalisation.
        std: standard deviation of the initial weights; 0 = He initialisation.
        out_channels: channels of F_kp, the output of a 1x1 convolution without activation.
    """

    def __init__(self, *, in_channels: int, conv_dim: int, num_convs: int, norm: str, std: float, out_channels: int):
        super().__init__()
        self.tower = conv_tower(in_channels, conv_dim, num_convs, norm, std)
        self.project = Conv2d(conv_dim if num_convs else in_channels, out_channels, 1)
        if std:
            nn.init.normal_(self.project.weight, std=std)
        else:
            nn.init.kaiming_normal_(self.project.weight, nonlinearity="linear")
        nn.init.zeros_(self.project.bias)

    def forward(self, p3: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        return self.project(self.tower(p3))


class DiskOffsets(nn.Module):
    """The disk offset branch (section 3.3): offsets from each cell to a nearby keypoint of each kind.

    Args:
        in_channels: C.
        num_keypoints: K.
        conv_dim: channels of all convolutions but the last.
        num_convs: 3x3 convolutions, including the last.
        norm: normalisation of all but the last.
        std: standard deviation of the initial weights; 0 = He initialisation of all but the last.

    Raises:
        ValueError: if ``num_convs`` is below 1.
    """

    def __init__(self, *, in_channels: int, num_keypoints: int, conv_dim: int, num_convs: int, norm: str, std: float):
        super().__init__()
        if num_convs < 1:
            raise ValueError(f"num_convs: expected at least 1, since it includes the last convolution, got {num_convs}")
        self.tower = conv_tower(in_channels, conv_dim, num_convs - 1, norm, std)
        self.predict = Conv2d(conv_dim if num_convs > 1 else in_channels, 2 * num_keypoints, 3, padding=1)
        nn.init.normal_(self.predict.weight, std=0.01)
        # Eq. 3 counts from the cell's corner: initially, the offsets lead to its centre
        nn.init.constant_(self.predict.bias, 0.5)

    def forward(self, p3: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 K, H, W), x0, y0, x1, y1, ..., in cells from the cell's top left corner."""
        return self.predict(self.tower(p3)).float()


class AuxHeatmap(nn.Module):
    """Auxiliary multi-person heatmaps, supervised in training and not computed in inference (section 3.4).

    Args:
        in_channels: C.
        num_keypoints: K.
        conv_dim: channels of the hidden 3x3 convolutions.
        num_convs: number of hidden convolutions.
        norm: their normalisation.
        std: standard deviation of the initial weights; 0 = He initialisation of all but the last.
        prior_prob: initial probability that sets the bias, as in CornerNet.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_keypoints: int,
        conv_dim: int,
        num_convs: int,
        norm: str,
        std: float,
        prior_prob: float = 0.1,
    ):
        super().__init__()
        self.tower = conv_tower(in_channels, conv_dim, num_convs, norm, std)
        self.predict = Conv2d(conv_dim if num_convs else in_channels, num_keypoints, 3, padding=1)
        nn.init.normal_(self.predict.weight, std=0.01)
        nn.init.constant_(self.predict.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, p3: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W) logits."""
        return self.predict(self.tower(p3))
