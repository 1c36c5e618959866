"""Weights and auxiliary losses of FCPose, as free functions (section 3.3, or the release where stated).

The losses over the networks' heatmaps are operators: :func:`~dynpose.layers.kp_net_cross_entropy` and
:mod:`dynpose.layers.map_losses`.

Axes: B images, N generated heads, K keypoints, H x W cells of the map.
"""

import torch
from torch import Tensor

from dynpose.layers.process_mean import normalizer


def head_weights(person: Tensor, num_people: int) -> Tensor:
    """Weights that turn a sum over heads into the mean over people of the mean over each person's heads.

    People are counted over all processes.

    Args:
        person: (N,) int64, the person of each head.
        num_people: G, above all values of ``person``.

    Returns:
        (N,) float32 weights.
    """
    # not torch.unique, which waits for a GPU
    counts = person.new_zeros(num_people).index_add_(0, person, torch.ones_like(person))
    num_persons = normalizer((counts > 0).sum())
    return 1 / (counts[person].float() * num_persons)


def heatmap_mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of squared errors, divided by the sum of squared targets over all processes (release).

    Args:
        logits, targets: (B, K, H, W).

    Returns:
        A scalar.
    """
    energy = normalizer(targets.square().sum())
    return (logits.float() - targets).square().sum() / energy
