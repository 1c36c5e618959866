"""The public losses over heatmaps: they check their arguments and hand over to PyTorch or to the Triton kernels.

FCPose's released training (Mao et al., CVPR 2021; its code differs from section 3.3) takes the softmax of its heatmaps
over the bilinearly up-sampled logits, and the expectation under it of how far off each cell's keypoint is. Written with
PyTorch's functions, either holds several maps larger than the heatmaps; here both hold a few numbers per heatmap, and
their backward passes compute the rest again.

Both compute in float32 (in float64 if the logits are), whatever the dtype of the logits and inside or outside autocast.
Logits and offsets must be finite. The value of an index is checked on the CPU alone, outside ``torch.compile``: for a
CUDA device the host would wait.

Letters of the shapes: N instances, B images, K keypoints, H x W cells of the map (rows x columns).

Backends: "torch" is the reference; "triton" the kernels, in Triton's interpreter on the CPU where that is switched on;
"auto" the kernels for CUDA tensors and the reference for others. Where the kernels are wanted and cannot run, the
reference does, and a warning says once why.
"""

from __future__ import annotations

import torch

from dynpose.layers.triton_support import triton, warn_of_fallback, why_not_triton

from .reference import _expected_distance, _upsampled_cross_entropy

if triton is not None:
    from . import fused


def upsampled_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, factor: int, *, backend: str = "auto"
) -> torch.Tensor:
    """Softmax cross-entropy of every heatmap, up-sampled bilinearly, against one of its fine cells.

    The up-sampling is that of ``F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)``.
    Differentiable in ``logits``, also for N = 0 or when all targets are ignored: the gradients are then zero, and not
    missing. The kernels give the same result every time.

    Args:
        logits: (N, K, H, W) heatmaps.
        targets: (N, K) int64, the keypoint's fine cell ``v * (W * factor) + u``; negative for a keypoint to ignore.
        factor: fine cells per cell in each dimension; 1 for the heatmaps as they are.
        backend: "auto", "torch" or "triton".

    Returns:
        (N, K) losses ``logsumexp(up-sampled logits) - (up-sampled logits)[target]``, zero where ignored; float32, or
        float64 for float64 logits.

    Raises:
        ValueError: on a wrong shape, device or value of an argument, or an unknown backend.
        TypeError: on a wrong dtype.

    Example::

        >>> logits = torch.zeros(2, 17, 100, 168)
        >>> targets = torch.full((2, 17), 400 * 672 - 1)
        >>> upsampled_cross_entropy(logits, targets, factor=4)[0, 0]  # log(400 * 672)
        tensor(12.5017)
    """
    _check_logits(logits)
    _check_positive_int("factor", factor)
    _check_tensor("targets", targets, logits.shape[:2], logits.device, torch.int64)
    _check_below("targets", targets, "(H * factor) * (W * factor)", logits.shape[2] * logits.shape[3] * factor**2)
    with torch.autocast(logits.device.type, enabled=False):
        if _use_kernels("upsampled_cross_entropy", backend, logits):
            return fused._upsampled_cross_entropy(logits, targets, factor)
        return _upsampled_cross_entropy(logits, targets, factor)


def expected_distance(
    logits: torch.Tensor,
    offsets: torch.Tensor,
    image_index: torch.Tensor,
    keypoints: torch.Tensor,
    box_sizes: torch.Tensor,
    *,
    stride: int,
    distance_norm: float = 12.0,
    backend: str = "auto",
) -> torch.Tensor:
    """Expectation of a keypoint's localisation error under its heatmap (the offset loss of FCPose's released code).

    For every cell, the distance from (cell centre + offset) to the keypoint, in units of the box size, is squashed to
    [0, 1) by tanh(distance_norm / 2 * distance) and averaged over the cells with the softmax of the logits as weights.
    The centre of the cell in column u and row v is (u * stride + stride // 2, v * stride + stride // 2).

    Differentiable in ``logits`` and ``offsets``, also for N = 0 or when no keypoint is labelled: the gradients are then
    zero, and not missing. Where a cell meets the keypoint to a millionth of a pixel, its offset has no gradient.

    The kernels add up the offsets' gradient over the instances of an image in a fixed order, so that the result is the
    same every time. There is no faster way with atomic additions: the program that owns some cells of an offset map
    reads them once, keeps their gradient on the chip, and reads each instance's logits once for both gradients.

    Args:
        logits: (N, K, H, W) heatmaps.
        offsets: (B, K, 2, H, W) x and y that each cell of an image adds to its centre, input pixels.
        image_index: (N,) int64 in [0, B), the image that each instance belongs to, in any order.
        keypoints: (N, K, 3) x and y in input pixels, and visibility: 0 for a keypoint that is not labelled, whose
            coordinates may be anything. No gradient.
        box_sizes: (N,) half the sum of width and height of each person's box, pixels; at least 1 is taken. No gradient.
        stride: pixels between two cells.
        distance_norm: steepness of the squashing; the result is divided by it.
        backend: "auto", "torch" or "triton".

    Returns:
        (N, K), zero where the keypoint is not labelled; float32, or float64 for float64 logits.

    Raises:
        ValueError, TypeError: as :func:`upsampled_cross_entropy`.

    Example::

        >>> logits = torch.zeros(1, 1, 1, 2)  # two cells, centres (4, 4) and (12, 4), of the same weight
        >>> offsets = torch.zeros(1, 1, 2, 1, 2)
        >>> keypoints = torch.tensor([[[4.0, 4.0, 2.0]]])  # tanh(6 * 8 / 48) / 2 / 12
        >>> expected_distance(logits, offsets, torch.tensor([0]), keypoints, torch.tensor([48.0]), stride=8)
        tensor([[0.0317]])
    """
    _check_logits(logits)
    num_instances, num_keypoints, height, width = logits.shape
    device = logits.device
    _check_tensor("offsets", offsets, (len(offsets), num_keypoints, 2, height, width), device)
    _check_tensor("image_index", image_index, (num_instances,), device, torch.int64)
    _check_tensor("keypoints", keypoints, (num_instances, num_keypoints, 3), device)
    _check_tensor("box_sizes", box_sizes, (num_instances,), device)
    _check_below("image_index", image_index, "B", len(offsets))
    if _can_read(image_index) and num_instances and image_index.min() < 0:
        raise ValueError(f"image_index: expected no negative value, got {int(image_index.min())}")
    _check_positive_int("stride", stride)
    if not distance_norm > 0:
        raise ValueError(f"distance_norm: expected a positive number, got {distance_norm!r}")
    arguments = (logits, offsets, image_index, keypoints, box_sizes, stride, distance_norm)
    with torch.autocast(device.type, enabled=False):
        if _use_kernels("expected_distance", backend, logits, offsets):
            return fused._expected_distance(*arguments)
        return _expected_distance(*arguments)


def _use_kernels(operator, backend, *maps):
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"backend: expected 'auto', 'torch' or 'triton', got {backend!r}")
    if backend == "torch" or (backend == "auto" and maps[0].device.type != "cuda"):
        return False
    reasons = [reason for reason in map(why_not_triton, maps) if reason]
    if reasons:
        warn_of_fallback(operator, reasons[0])
    return not reasons


def _check_logits(logits):
    if logits.dim() != 4 or 0 in logits.shape[1:]:
        raise ValueError(f"logits: expected shape (N, K, H, W), got {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"logits: expected a floating-point dtype, got {logits.dtype}")


def _check_tensor(name, tensor, shape, device, dtype=None):
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name}: expected device {device} as for logits, got {tensor.device}")
    if dtype is not None and tensor.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {tensor.dtype}")
    if dtype is None and not tensor.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, got {tensor.dtype}")


def _check_positive_int(name, value):
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive int, got {value!r}")


def _check_below(name, index, letters, limit):
    if _can_read(index) and index.numel() and index.max() >= limit:
        raise ValueError(f"{name}: expected values below {letters} = {limit}, got {int(index.max())}")


def _can_read(index):
    return index.device.type == "cpu" and not torch.compiler.is_compiling()
