"""The public losses over heatmaps: they check their arguments and dispatch to a backend.

FCPose's released training (Mao et al., CVPR 2021; its code differs from section 3.3) takes the softmax over the
bilinearly up-sampled logits, and the expected error of the cells' keypoint estimates under the softmax of the heatmaps.
With PyTorch functions, each loss stores several maps larger than the heatmaps; here each stores a few numbers per
heatmap, and the backward pass recomputes the rest.

Both compute in float32 (in float64 if the logits are), for any dtype of the logits and inside or outside autocast.
Logits and offsets must be finite. Index values are checked only on the CPU and outside ``torch.compile``, to avoid
synchronising with a CUDA device.

Letters of the shapes: N instances, B images, K keypoints, H x W cells of the map (rows x columns).

A backend implements them under these names, see :mod:`dynpose.layers.backends`. An implementation takes the function's
arguments by position. "torch" is the reference; "triton" the kernels, on the CPU in Triton's interpreter if it is
enabled; "auto" the kernels for CUDA tensors and the reference for others.
"""

from __future__ import annotations

import torch

from dynpose.layers.backends import Implementation, register_backend, select_backend
from dynpose.layers.tensor_checks import (
    check_below,
    check_floating_point,
    check_index,
    check_positive_int,
    check_tensor,
)
from dynpose.layers.triton_support import triton, triton_unavailable_reason
from dynpose.utils.exporting import without_autocast

from . import reference

if triton is not None:
    from . import fused


def upsampled_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, factor: int, *, backend: str = "auto"
) -> torch.Tensor:
    """Softmax cross-entropy of every bilinearly up-sampled heatmap against one of its fine cells.

    The up-sampling is that of ``F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)``.
    Differentiable in ``logits``. For N = 0, or if all targets are ignored, the gradients are zero rather than None. The
    kernels are deterministic.

    Args:
        logits: (N, K, H, W) heatmaps.
        targets: (N, K) int64, the keypoint's fine cell ``v * (W * factor) + u``; negative for a keypoint to ignore.
        factor: fine cells per cell in each dimension; 1 for the heatmaps as they are.
        backend: a name of :func:`~dynpose.layers.backends.backend_names`.

    Returns:
        (N, K) losses ``logsumexp(up-sampled logits) - (up-sampled logits)[target]``, zero where ignored; float32, or
        float64 for float64 logits.

    Raises:
        ValueError: if a shape, device or value is invalid, or the backend is unknown.
        TypeError: if a dtype is invalid.

    Example::

        >>> logits = torch.zeros(2, 17, 100, 168)
        >>> targets = torch.full((2, 17), 400 * 672 - 1)
        >>> upsampled_cross_entropy(logits, targets, factor=4)[0, 0]  # log(400 * 672)
        tensor(12.5017)
    """
    _check_logits(logits)
    check_positive_int("factor", factor)
    check_tensor("targets", targets, logits.shape[:2], ("logits", logits), torch.int64)
    check_below("targets", targets, "(H * factor) * (W * factor)", logits.shape[2] * logits.shape[3] * factor**2)
    return _run("upsampled_cross_entropy", backend, logits, targets, factor)


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
    """Expected localisation error of a keypoint under its heatmap (the offset loss of FCPose's release).

    For every cell, the distance from (cell centre + offset) to the keypoint, in units of the box size, is squashed to
    [0, 1) by tanh(distance_norm / 2 * distance) and averaged over the cells with the softmax of the logits as weights.
    The centre of the cell in column u and row v is (u * stride + stride // 2, v * stride + stride // 2).

    Differentiable in ``logits`` and ``offsets``. For N = 0, or if no keypoint is labelled, the gradients are zero
    rather than None. An offset has no gradient where its cell's error is below a millionth of a pixel.

    The kernels sum the offsets' gradient over the instances of an image in a fixed order, so they are deterministic.
    Atomic additions would not be faster: the program for some cells of an offset map reads them once, keeps their
    gradient on the chip, and reads each instance's logits once for both gradients.

    Args:
        logits: (N, K, H, W) heatmaps.
        offsets: (B, K, 2, H, W) x and y that each cell of an image adds to its centre, input pixels.
        image_index: (N,) int64 in [0, B), the image that each instance belongs to, in any order.
        keypoints: (N, K, 3) x and y in input pixels, and visibility: 0 for an unlabelled keypoint, whose coordinates
            may be anything. No gradient.
        box_sizes: (N,) half the sum of width and height of each person's box, pixels, clamped to at least 1. No
            gradient.
        stride: pixels per cell.
        distance_norm: steepness of the squashing; the result is divided by it.
        backend: a name of :func:`~dynpose.layers.backends.backend_names`.

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
    like = ("logits", logits)
    check_tensor("offsets", offsets, (len(offsets), num_keypoints, 2, height, width), like)
    check_tensor("image_index", image_index, (num_instances,), like, torch.int64)
    check_tensor("keypoints", keypoints, (num_instances, num_keypoints, 3), like)
    check_tensor("box_sizes", box_sizes, (num_instances,), like)
    check_index("image_index", image_index, "B", len(offsets))
    check_positive_int("stride", stride)
    if not distance_norm > 0:
        raise ValueError(f"distance_norm: expected a positive number, got {distance_norm!r}")
    arguments = (logits, offsets, image_index, keypoints, box_sizes, stride, distance_norm)
    return _run("expected_distance", backend, *arguments)


def _run(operator, backend, logits, *arguments):
    with without_autocast(logits.device):
        return select_backend(operator, backend, logits.device, logits, *arguments)(logits, *arguments)


def _check_logits(logits):
    if logits.dim() != 4 or 0 in logits.shape[1:]:
        raise ValueError(f"logits: expected shape (N, K, H, W), got {tuple(logits.shape)}")
    check_floating_point("logits", logits)


def _distance_unavailable_reason(logits, offsets, *_):
    return triton_unavailable_reason(logits) or triton_unavailable_reason(offsets)


register_backend(
    "torch",
    {
        "upsampled_cross_entropy": Implementation(reference._upsampled_cross_entropy, devices=None),
        "expected_distance": Implementation(reference._expected_distance, devices=None),
    },
)
# The functions look the kernels up in their module, which does not exist without Triton, only when they run.
register_backend(
    "triton",
    {
        "upsampled_cross_entropy": Implementation(
            lambda *arguments: fused._upsampled_cross_entropy(*arguments),
            lambda logits, *_: triton_unavailable_reason(logits),
            ("cuda",),
        ),
        "expected_distance": Implementation(
            lambda *arguments: fused._expected_distance(*arguments), _distance_unavailable_reason, ("cuda",)
        ),
    },
)
