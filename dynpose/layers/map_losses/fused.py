"""The losses over heatmaps with Triton kernels, as custom torch operators.

Each operator returns the losses and, for its backward pass only, the log-sum-exp of every map, which has no gradient.
Besides these two numbers per map, the forward pass stores one number (two for the distance) per part of a map
(BAND x COLUMNS cells), and the backward pass the gradients that it returns. No tensor has the size of the up-sampled
maps.
"""

import torch
import triton

from . import kernels

# Launch options per kind of kernel. Wide parts read whole cache lines, and low parts are numerous enough to fill a GPU
# with few instances: one person of an 800 x 1333 image has 17 x 21 of them.
PARTS = {"BAND": 16, "COLUMNS": 64, "num_warps": 2}
# Parts that a merge kernel reads at once: maps of 200 x 336 cells have 78.
MERGE = {"BLOCK": 128, "num_warps": 1}
# A warp with four cells and four instances per thread has 16 loads in flight, and reads a person's values once.
DISTANCE_BACKWARD = {"INSTANCES": 4, "CELLS": 128, "num_warps": 1}


def _upsampled_cross_entropy(logits, targets, factor):
    """See :func:`dynpose.layers.map_losses.upsampled_cross_entropy`."""
    losses, _ = _cross_entropy_op(logits, targets, factor)
    return losses


def _expected_distance(logits, offsets, image_index, keypoints, box_sizes, stride, distance_norm):
    """See :func:`dynpose.layers.map_losses.expected_distance`."""
    losses, _ = _distance_op(
        logits, offsets, image_index, keypoints.detach(), box_sizes.detach(), stride, float(distance_norm)
    )
    return losses


# --- cross-entropy over the up-sampled logits ---


@torch.library.custom_op("dynpose::upsampled_cross_entropy", mutates_args=())
def _cross_entropy_op(logits: torch.Tensor, targets: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits, targets = logits.contiguous(), targets.contiguous()
    num_parts = _num_parts(logits)
    partial = _empty(logits, (targets.numel(), num_parts))
    losses, lse = _empty(logits, targets.shape), _empty(logits, targets.shape)
    size = logits.shape[2:]
    with torch.cuda.device_of(logits):
        _launch(
            kernels.upsampled_lse_kernel,
            targets.numel() * num_parts,
            (logits, targets, partial, *size),
            FACTOR=factor,
            **PARTS,
        )
        _launch(
            kernels.upsampled_merge_kernel,
            targets.numel(),
            (logits, targets, partial, losses, lse, *size, num_parts),
            FACTOR=factor,
            **MERGE,
        )
    return losses, lse


@_cross_entropy_op.register_fake
def _(logits, targets, factor):
    return _empty(logits, targets.shape), _empty(logits, targets.shape)


@torch.library.custom_op("dynpose::upsampled_cross_entropy_backward", mutates_args=())
def _cross_entropy_backward_op(
    grad_losses: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, lse: torch.Tensor, factor: int
) -> torch.Tensor:
    logits = logits.contiguous()
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(logits):
        _launch(
            kernels.upsampled_backward_kernel,
            targets.numel() * _num_parts(logits),
            (grad_losses.contiguous(), logits, targets.contiguous(), lse, grad_logits, *logits.shape[2:]),
            FACTOR=factor,
            **PARTS,
        )
    return grad_logits


@_cross_entropy_backward_op.register_fake
def _(grad_losses, logits, targets, lse, factor):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _cross_entropy_context(ctx, inputs, output):
    logits, targets, ctx.factor = inputs
    ctx.save_for_backward(logits, targets, output[1])


def _cross_entropy_backward(ctx, grad_losses, _):
    return _cross_entropy_backward_op(grad_losses, *ctx.saved_tensors, ctx.factor), None, None


_cross_entropy_op.register_autograd(_cross_entropy_backward, setup_context=_cross_entropy_context)


# --- expected distance ---


@torch.library.custom_op("dynpose::expected_distance", mutates_args=())
def _distance_op(
    logits: torch.Tensor,
    offsets: torch.Tensor,
    image_index: torch.Tensor,
    keypoints: torch.Tensor,
    box_sizes: torch.Tensor,
    stride: int,
    distance_norm: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits, offsets, image_index = logits.contiguous(), offsets.contiguous(), image_index.contiguous()
    keypoints, box_sizes = _float(keypoints), _float(box_sizes)
    num_rows, num_parts = logits.shape[:2].numel(), _num_parts(logits)
    sizes = (*logits.shape[2:], logits.shape[1], stride, distance_norm)
    partial = _empty(logits, (num_rows, 2, num_parts))
    losses, lse = _empty(logits, logits.shape[:2]), _empty(logits, logits.shape[:2])
    with torch.cuda.device_of(logits):
        _launch(
            kernels.distance_parts_kernel,
            num_rows * num_parts,
            (logits, offsets, image_index, keypoints, box_sizes, partial, *sizes),
            **PARTS,
        )
        _launch(
            kernels.distance_merge_kernel,
            num_rows,
            (keypoints, partial, losses, lse, num_parts, distance_norm),
            **MERGE,
        )
    return losses, lse


@_distance_op.register_fake
def _(logits, offsets, image_index, keypoints, box_sizes, stride, distance_norm):
    return _empty(logits, logits.shape[:2]), _empty(logits, logits.shape[:2])


@torch.library.custom_op("dynpose::expected_distance_backward", mutates_args=())
def _distance_backward_op(
    grad_losses: torch.Tensor,
    logits: torch.Tensor,
    offsets: torch.Tensor,
    image_index: torch.Tensor,
    keypoints: torch.Tensor,
    box_sizes: torch.Tensor,
    losses: torch.Tensor,
    lse: torch.Tensor,
    stride: int,
    distance_norm: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits, offsets = logits.contiguous(), offsets.contiguous()
    contiguous = torch.contiguous_format
    gradients = (
        torch.empty_like(logits, memory_format=contiguous),
        torch.empty_like(offsets, memory_format=contiguous),
    )
    num_images, num_keypoints, _, height, width = offsets.shape
    sizes = (height, width, num_keypoints, stride, distance_norm)
    people = (_float(keypoints), _float(box_sizes))
    # The instances of each image, in order, without synchronising host and device.
    sorted_index, order = image_index.sort(stable=True)
    images = torch.arange(num_images + 1, device=image_index.device)
    starts = torch.searchsorted(sorted_index, images)
    with torch.cuda.device_of(logits):
        _launch(
            kernels.distance_backward_kernel,
            num_images * num_keypoints * triton.cdiv(height * width, DISTANCE_BACKWARD["CELLS"]),
            (grad_losses.contiguous(), logits, offsets, order, starts, *people, losses, lse, *gradients, *sizes),
            **DISTANCE_BACKWARD,
        )
    return gradients


@_distance_backward_op.register_fake
def _(grad_losses, logits, offsets, image_index, keypoints, box_sizes, losses, lse, stride, distance_norm):
    contiguous = torch.contiguous_format
    return torch.empty_like(logits, memory_format=contiguous), torch.empty_like(offsets, memory_format=contiguous)


def _distance_context(ctx, inputs, output):
    *tensors, ctx.stride, ctx.distance_norm = inputs
    ctx.save_for_backward(*tensors, *output)


def _distance_backward(ctx, grad_losses, _):
    gradients = _distance_backward_op(grad_losses, *ctx.saved_tensors, ctx.stride, ctx.distance_norm)
    return (*gradients, None, None, None, None, None)


_distance_op.register_autograd(_distance_backward, setup_context=_distance_context)


# --- launching ---


def _launch(kernel, num_programs, arguments, **options):
    if num_programs:
        kernel[(num_programs,)](*arguments, **options)


def _num_parts(logits):
    height, width = logits.shape[2:]
    return triton.cdiv(height, PARTS["BAND"]) * triton.cdiv(width, PARTS["COLUMNS"])


def _empty(like, shape):
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _float(tensor):
    return tensor.float().contiguous()
