"""CID's losses, as free functions (sections 3.2 and 3.4).

Normalisers are averaged over the processes, so that the gradient averaged by DistributedDataParallel equals that of one
process with the whole batch.
Axes: B images, N people, K keypoints, C channels, H x W cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dynpose.layers.process_mean import normalizer
from dynpose.utils.arguments import check_one_of
from dynpose.utils.exporting import without_autocast

HEATMAP_LOSS_NORMS = ("pooled", "person")


def focal_sums(heatmaps: Tensor, targets: Tensor, counted: Tensor, *, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Sum the penalty-reduced focal loss of heatmaps (Eq. 15 without 1 / N).

    Args:
        heatmaps (Tensor): (N, K, H, W) probabilities between 0 and 1, both excluded.
        targets (Tensor): (N, K, H, W) in [0, 1].
        counted (Tensor): bool, of a shape that broadcasts to it: the cells that have a loss.
        alpha, beta (float): the exponents.

    Returns:
        Tensor: (N,).
    """
    positive = (1 - heatmaps) ** alpha * heatmaps.log()
    negative = (1 - targets) ** beta * heatmaps**alpha * (1 - heatmaps).log()
    return -(torch.where(targets == 1, positive, negative) * counted).sum(dim=(1, 2, 3))


def multi_heatmap_loss(heatmaps: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Focal loss of the multi-person maps (first term of Eq. 14), divided by the counted cells whose target is one.

    Args:
        heatmaps, targets (Tensor): (B, K + 1, H, W).
        counted (Tensor): (B, 1, H, W) bool.

    Returns:
        Tensor: scalar, finite without people.
    """
    peaks = ((targets == 1) & counted).sum()
    return focal_sums(heatmaps, targets, counted).sum() / normalizer(peaks)


def single_heatmap_loss(sums: Tensor, num_keypoints: Tensor, norm: str) -> Tensor:
    """Reduce the focal losses of the single-person maps (L_GFD).

    Args:
        sums (Tensor): (N,) from :func:`focal_sums`.
        num_keypoints (Tensor): (N,) keypoints of each person inside the image; each one's map has one cell whose target
            is one.
        norm (str): "pooled" (release) = the sum divided by the number of keypoints of all people; "person" (Eq. 16) =
            the mean over people of each person's sum divided by the number of the person's keypoints.

    Returns:
        Tensor: scalar, zero without people.

    Raises:
        ValueError: if ``norm`` is unknown.
    """
    check_one_of("norm", norm, HEATMAP_LOSS_NORMS)
    if norm == "pooled":
        return sums.sum() / normalizer(num_keypoints.sum())
    return (sums / num_keypoints.clamp(min=1)).sum() / normalizer(len(sums), sums.device)


def contrastive_loss(features: Tensor, image_index: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Mean over the people of the loss of Eq. 8, which separates a person from the others of the same image.

    Args:
        features (Tensor): (N, C), f.
        image_index (Tensor): (N,) int64.
        temperature (float): tau.

    Returns:
        Tensor: float32 scalar, even under autocast; zero without people.
    """
    with without_autocast(features.device):
        features = F.normalize(features.float(), dim=1)
        logits = features @ features.T / temperature
    logits = logits.masked_fill(image_index[:, None] != image_index, -float("inf"))
    own = torch.arange(len(features), device=features.device)
    return F.cross_entropy(logits, own, reduction="sum") / normalizer(len(features), features.device)
