"""The reference of the losses over heatmaps in plain PyTorch: it runs on any device and defines their results.

Heatmaps are processed in chunks, so that memory is bounded for any N. With gradients and more than one chunk, the
backward pass recomputes the tensors that are larger than the heatmaps instead of storing them.

Arguments are those of the public functions, already checked. ``max_elements`` bounds the values in the largest tensor
of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# 256 MiB of float32
_MAX_ELEMENTS = 2**26


def _upsampled_cross_entropy(logits, targets, factor, *, max_elements=_MAX_ELEMENTS):
    """Losses (N, K). See :func:`dynpose.layers.map_losses.upsampled_cross_entropy`."""

    def losses(logits, targets):
        logits = _upsample(_in_float32(logits), factor)
        return F.cross_entropy(logits.flatten(1), targets.clamp(min=-1), ignore_index=-1, reduction="none")

    cells = logits.shape[2] * logits.shape[3] * factor**2
    return _over_chunks(losses, max_elements // cells, logits.flatten(0, 1), targets.flatten()).view(targets.shape)


def _upsample(maps, factor):
    """(M, H, W) -> (M, H * factor, W * factor)."""
    if factor == 1:
        return maps
    size = [length * factor for length in maps.shape[1:]]
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False).squeeze(1)


def _expected_distance(
    logits, offsets, image_index, keypoints, box_sizes, stride, distance_norm, *, max_elements=_MAX_ELEMENTS
):
    """Losses (N, K). See :func:`dynpose.layers.map_losses.expected_distance`."""
    num_instances, num_keypoints, height, width = logits.shape
    # Each cell's estimate of the keypoint, (B * K, 2, H, W), and the index in it of each instance and keypoint's map.
    points = (_in_float32(offsets) + _cell_centers(height, width, stride, offsets)).flatten(0, 1)
    kinds = torch.arange(num_keypoints, device=logits.device)
    map_index = (image_index[:, None] * num_keypoints + kinds).flatten()

    def losses(logits, map_index, keypoints, box_sizes):
        labelled = keypoints[:, 2] > 0
        # NaN and far-away coordinates of unlabelled keypoints must not reach the gradients
        keypoints = torch.where(labelled[:, None], keypoints[:, :2], 0.0)
        squared = (points[map_index] - keypoints[:, :, None, None]).square().sum(dim=1)
        # the square root has an infinite slope at zero; below the floor, a millionth of a pixel, the slope is zero
        distance = squared.clamp(min=1e-12).sqrt() / box_sizes.clamp(min=1.0)[:, None, None]
        squashed = torch.tanh(distance * (distance_norm / 2))
        weights = _in_float32(logits).flatten(1).softmax(dim=1)
        expectation = (weights * squashed.flatten(1)).sum(dim=1) / distance_norm
        return torch.where(labelled, expectation, 0.0)

    keypoints, box_sizes = _in_float32(keypoints.detach()), _in_float32(box_sizes.detach())
    box_sizes = box_sizes.repeat_interleave(num_keypoints)
    chunk_size = max_elements // (2 * height * width)
    result = _over_chunks(losses, chunk_size, logits.flatten(0, 1), map_index, keypoints.flatten(0, 1), box_sizes)
    return result.view(num_instances, num_keypoints)


def _cell_centers(height, width, stride, like):
    """Centres (x, y) of the cells in pixels: (2, H, W)."""
    y, x = (torch.arange(size, device=like.device) * stride + stride // 2 for size in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def _in_float32(tensor):
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _over_chunks(function, chunk_size, *tensors):
    """Call ``function`` on chunks of tensors that share their first axis, and concatenate its results."""
    chunk_size = max(1, chunk_size)
    if len(tensors[0]) <= chunk_size:
        return function(*tensors)
    chunks = zip(*(tensor.split(chunk_size) for tensor in tensors))
    if not torch.is_grad_enabled():
        return torch.cat([function(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])
