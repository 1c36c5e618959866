"""The focal loss of heatmaps that all people of an image share.

Axes: B images, K keypoints, H x W cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dynpose.layers.process_mean import normalizer


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
