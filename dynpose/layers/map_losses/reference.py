"""The reference of the losses over heatmaps in plain PyTorch: it runs on any device and defines their results.

Heatmaps are processed in chunks, so that memory is bounded for any N. The up-sampled cross-entropy has a backward
pass of its own, which recomputes the up-sampled maps of a chunk. For the expected distance, with gradients and more
than one chunk, the backward pass recomputes the tensors that are larger than the heatmaps instead of storing them.

Arguments are those of the public functions, already checked. ``max_elements`` bounds the values in the largest tensor
of a chunk; None for the device's default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

# 256 MiB of float32
_MAX_ELEMENTS = 2**26
# On a CPU: 4 MiB of float32, so that a chunk stays in the cache (measured from 2**17 to 2**26)
_MAX_ELEMENTS_CPU = 2**20


def _upsampled_cross_entropy(logits, targets, factor, *, max_elements=None):
    """Losses (N, K). See :func:`dynpose.layers.map_losses.upsampled_cross_entropy`."""
    chunk_size = max(1, _bound(max_elements, logits) // (logits.shape[2] * logits.shape[3] * factor**2))
    return _UpsampledCrossEntropy.apply(logits.flatten(0, 1), targets.flatten(), factor, chunk_size).view(targets.shape)


class _UpsampledCrossEntropy(torch.autograd.Function):
    """Losses (M,) of M maps (M, H, W); each and two numbers are stored for the backward pass."""

    @staticmethod
    def forward(ctx, logits, targets, factor, chunk_size):
        losses, peaks, sums = [], [], []
        for maps, cells in zip(logits.split(chunk_size), targets.split(chunk_size)):
            fine = _upsample(_in_float32(maps), factor)
            peak = fine.amax(dim=(0, 1, 3, 4))
            of_target = fine[_phase_index(cells.clamp(min=0), factor, maps.shape[2])] - peak
            total = fine.sub_(peak[:, None, None]).exp_().sum(dim=(0, 1, 3, 4))
            losses.append(torch.where(cells >= 0, total.log() - of_target, 0.0))
            peaks.append(peak)
            sums.append(total)
        ctx.save_for_backward(logits, targets, torch.cat(peaks), torch.cat(sums))
        ctx.factor, ctx.chunk_size = factor, chunk_size
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """The softmax of a map less one at the target, times the map's gradient, through the adjoint of up-sampling."""
        logits, targets, peaks, sums = ctx.saved_tensors
        scales = torch.where(targets >= 0, gradient / sums, 0.0)
        of_logits = torch.empty_like(logits)
        for result, maps, cells, peak, total, scale in zip(
            *(tensor.split(ctx.chunk_size) for tensor in (of_logits, logits, targets, peaks, sums, scales))
        ):
            fine = _upsample(_in_float32(maps), ctx.factor).sub_(peak[:, None, None]).exp_()
            fine[_phase_index(cells.clamp(min=0), ctx.factor, maps.shape[2])] -= total
            result.copy_(_upsample_adjoint(fine) * scale[:, None, None])
        return of_logits, None, None, None


def _upsample(maps, factor):
    """Up-sample bilinearly: (M, H, W) -> (factor, factor, M, H, W).

    Entry (p, q) has the fine cells in row ``v * factor + q`` and column ``u * factor + p`` for all cells (u, v). Each
    value lies between a cell's and the neighbours' on one side, of which the map's border has copies.
    """
    if factor == 1:
        return maps.clone()[None, None]
    count, height, width = maps.shape
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate").squeeze(1)
    rows = maps.new_empty(factor, count, height, width + 2)
    fine = maps.new_empty(factor, *rows.shape[:3], width)
    for phase, (neighbours, share) in enumerate(_phases(factor)):
        torch.lerp(padded[:, 1:-1], padded[:, neighbours], share, out=rows[phase])
    for phase, (neighbours, share) in enumerate(_phases(factor)):
        torch.lerp(rows[..., 1:-1], rows[..., neighbours], share, out=fine[phase])
    return fine


def _upsample_adjoint(fine):
    """The adjoint of :func:`_upsample`: (factor, factor, M, H, W) -> (M, H, W)."""
    factor, _, count, height, width = fine.shape
    if factor == 1:
        return fine[0, 0]
    rows = fine.new_zeros(factor, count, height, width + 2)
    for values, (neighbours, share) in zip(fine, _phases(factor)):
        rows[..., 1:-1].add_(values, alpha=1 - share)
        rows[..., neighbours].add_(values, alpha=share)
    padded = fine.new_zeros(count, height + 2, width + 2)
    for values, (neighbours, share) in zip(rows, _phases(factor)):
        padded[:, 1:-1].add_(values, alpha=1 - share)
        padded[:, neighbours].add_(values, alpha=share)
    # what the border's copies received
    for inner, outer in ((1, 0), (-2, -1)):
        padded[:, inner] += padded[:, outer]
    for inner, outer in ((1, 0), (-2, -1)):
        padded[..., inner] += padded[..., outer]
    return padded[:, 1:-1, 1:-1]


def _phases(factor):
    """The neighbours in a padded axis that each of a cell's fine cells lies towards, and their share in its value."""
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        yield (slice(None, -2) if offset < 0 else slice(2, None)), abs(offset)


def _phase_index(cells, factor, width):
    """Index of the fine cells ``v * (W * factor) + u`` (M,) of M maps in the result of :func:`_upsample`."""
    rows, columns = torch.div(cells, width * factor, rounding_mode="floor"), cells % (width * factor)
    maps = torch.arange(len(cells), device=cells.device)
    coarse = (torch.div(axis, factor, rounding_mode="floor") for axis in (rows, columns))
    return columns % factor, rows % factor, maps, *coarse


def _expected_distance(logits, offsets, image_index, keypoints, box_sizes, stride, distance_norm, *, max_elements=None):
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
    chunk_size = _bound(max_elements, logits) // (2 * height * width)
    result = _over_chunks(losses, chunk_size, logits.flatten(0, 1), map_index, keypoints.flatten(0, 1), box_sizes)
    return result.view(num_instances, num_keypoints)


def _cell_centers(height, width, stride, like):
    """Centres (x, y) of the cells in pixels: (2, H, W)."""
    y, x = (torch.arange(size, device=like.device) * stride + stride // 2 for size in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def _bound(max_elements, like):
    if max_elements is None:
        return _MAX_ELEMENTS_CPU if like.device.type == "cpu" else _MAX_ELEMENTS
    return max_elements


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
