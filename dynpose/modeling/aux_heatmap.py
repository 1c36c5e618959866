"""Auxiliary multi-person heatmaps: a task of training alone that makes features better.

Axes: B images, C channels of the features, K keypoints, H x W cells.
"""

import math

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from dynpose.layers.process_mean import normalizer
from dynpose.modeling.fcos import conv_tower


class AuxHeatmap(nn.Module):
    """Multi-person heatmaps, supervised in training and not computed in inference (InsPose section 3.4).

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

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W) logits."""
        return self.predict(self.tower(features))


def heatmap_focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Penalty-reduced focal loss of multi-person heatmaps (InsPose, L_hm of Eq. 5; Eq. 1 of CornerNet, ECCV 2018).

    The loss of a cell is -(1 - p)^alpha log(p) where the target is one, else -(1 - target)^beta p^alpha log(1 - p); the
    sum is divided by the number of cells whose target is one.

    Args:
        logits: (B, K, H, W).
        targets: (B, K, H, W) in [0, 1], one at the keypoints.
        alpha, beta: the exponents.

    Returns:
        A scalar, finite without keypoints.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    peak = targets == 1
    positive = (1 - probability) ** alpha * F.logsigmoid(logits)
    negative = (1 - targets) ** beta * probability**alpha * F.logsigmoid(-logits)
    count = normalizer(peak.sum())
    return -torch.where(peak, positive, negative).sum() / count
