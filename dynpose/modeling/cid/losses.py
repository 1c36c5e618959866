"""CID's losses, as free functions (sections 3.2 and 3.4).

Normalisers are averaged over the processes, so that the gradient that DistributedDataParallel averages is that of one
process with the whole batch.
Axes: B images, N people, K keypoints, C channels, H x W cells.
"""

import torch
import torch.nn.functional as F

from dynpose.layers.process_mean import normalizer
from dynpose.utils.arguments import check_one_of

HEATMAP_LOSS_NORMS = ("pooled", "person")


def focal_sums(heatmaps, targets, counted, *, alpha=2.0, beta=4.0):
    """Sum the penalty-reduced focal loss of heatmaps (Eq. 15 without 1 / N).

    Args:
        heatmaps (Tensor): (N, K, H, W) probabilities between 0 and 1, both excluded.
        targets (Tensor): (N, K, H, W) in [0, 1].
        counted (Tensor): bool, of a shape that expands to it: the cells that have a loss.
        alpha, beta (float): the exponents.

    Returns:
        Tensor: (N,).
    """
    positive = (1 - heatmaps) ** alpha * heatmaps.log()
    negative = (1 - targets) ** beta * heatmaps**alpha * (1 - heatmaps).log()
    return -(torch.where(targets == 1, positive, negative) * counted).sum(dim=(1, 2, 3))


def multi_heatmap_loss(heatmaps, targets, counted):
    """Focal loss of the multi-person maps (first term of Eq. 14), over the number of counted cells whose target is one.

    Args:
        heatmaps, targets (Tensor): (B, K + 1, H, W).
        counted (Tensor): (B, 1, H, W) bool.

    Returns:
        Tensor: scalar, finite without any person.
    """
    peaks = ((targets == 1) & counted).sum()
    return focal_sums(heatmaps, targets, counted).sum() / normalizer(peaks)


def single_heatmap_loss(sums, num_labelled, norm):
    """Join the focal losses of the people's own maps (L_GFD).

    Args:
        sums (Tensor): (N,) from :func:`focal_sums`.
        num_labelled (Tensor): (N,) keypoints of each person, whose maps have one cell with a target of one each.
        norm (str): "pooled" = the sum over the number of keypoints of all people, as released; "person" = the mean over
            people of each one's sum over the number of his or her keypoints (Eq. 16).

    Returns:
        Tensor: scalar, zero without any person.

    Raises:
        ValueError: for another ``norm``.
    """
    check_one_of("norm", norm, HEATMAP_LOSS_NORMS)
    if norm == "pooled":
        return sums.sum() / normalizer(num_labelled.sum())
    return (sums / num_labelled.clamp(min=1)).sum() / normalizer(len(sums), sums.device)


def contrastive_loss(features, image_index, *, temperature=0.05):
    """Mean over the people of the loss of Eq. 8, which tells a person from the others of the same image.

    Args:
        features (Tensor): (N, C), f.
        image_index (Tensor): (N,) int64.
        temperature (float): tau.

    Returns:
        Tensor: float32 scalar, under autocast, too; zero without any person.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = F.normalize(features.float(), dim=1)
        logits = features @ features.T / temperature
    logits = logits.masked_fill(image_index[:, None] != image_index, -float("inf"))
    own = torch.arange(len(features), device=features.device)
    return F.cross_entropy(logits, own, reduction="sum") / normalizer(len(features), features.device)
