"""Weights and auxiliary losses of FCPose, as free functions (section 3.3, or the release where stated).

The losses over the networks' heatmaps are operators: :func:`~dynpose.layers.kp_net_cross_entropy` and
:mod:`dynpose.layers.map_losses`.

Axes: B images, N generated heads, K keypoints, H x W cells of the map.
"""

import torch
from torch import Tensor

from dynpose.layers.process_mean import normalizer


def head_weights(person: Tensor) -> Tensor:
    """Weights that turn a sum over heads into the mean over people of the mean over each person's heads.

    People are counted over all processes.

    Args:
        person: (N,) int64, the person of each head.

    Returns:
        (N,) float32 weights.
    """
    _, index, counts = torch.unique(person, return_inverse=True, return_counts=True)
    num_persons = normalizer(len(counts), person.device)
    return 1 / (counts[index].float() * num_persons)


def heatmap_mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of squared errors, divided by the sum of squared targets over all processes (release).

    Args:
        logits, targets: (B, K, H, W).

    Returns:
        A scalar.
    """
    energy = normalizer(targets.square().sum())
    return (logits.float() - targets).square().sum() / energy
