"""The public KP-Net operator: checks its arguments and hands over to a backend.

A KP-Net (FCPose section 3.1, InsPose section 3.2) is a small network of 1x1 convolutions with its own weights for each
person. It runs over the whole feature map of the person's image, with the offset of each cell from the person's
location as two more input channels:

    sign * ((u * stride + stride // 2, v * stride + stride // 2) - location) / coord_scale

for the cell in column u and row v. All three functions compute in float32 (in float64 if features or parameters are),
inside or outside autocast. On the matrix units of a GPU, products round their factors as those of PyTorch do: to TF32
where ``torch.backends.cuda.matmul.allow_tf32`` is set; the fused kernels also to bfloat16 for bfloat16 features and to
TF32 for float16 ones. Sums and coordinates are float32.

They never wait for a CUDA device to check the values of an index: only on the CPU, and outside ``torch.compile``, is
one out of range an error.
"""

from __future__ import annotations

import torch

from .backends import select_backend
from .spec import KPNetPeaks, KPNetSpec


def kp_net_heatmaps(
    features: torch.Tensor,
    params: torch.Tensor,
    image_index: torch.Tensor,
    locations: torch.Tensor,
    coord_scale: torch.Tensor,
    spec: KPNetSpec,
    stride: int,
    *,
    backend: str = "auto",
) -> torch.Tensor:
    """Heatmaps of all instances. Differentiable in ``features`` and ``params``.

    Prefer :func:`kp_net_peaks` for inference and :func:`kp_net_cross_entropy` for training: they do not hold the
    N x K x H x W numbers that this returns.

    Args:
        features: (B, C, H, W) floating-point maps.
        params: (N, P) parameters of the KP-Nets, packed as :class:`KPNetSpec` says.
        image_index: (N,) int64 in [0, B), the image that each instance belongs to, in any order.
        locations: (N, 2) where (x, y) each KP-Net was generated, pixels of the network's input.
        coord_scale: (N,) pixels that the relative coordinates are divided by.
        spec: the shape of the KP-Nets.
        stride: pixels between two cells of ``features``.
        backend: name of the implementation: "torch" is plain PyTorch, "triton" the fused kernels for CUDA (compute
            capability 8.0 or more, float32, bfloat16 or float16 features, at most 64 channels and 4 layers), "auto" the
            best for the device. Where the kernels cannot run, PyTorch does, and a warning says so once.

    Returns:
        (N, K, H, W) logits, float32 or float64.

    Raises:
        ValueError: on a wrong shape, device or value of an argument, or an unknown backend.
        TypeError: on a wrong dtype.

    Example::

        >>> spec = KPNetSpec(in_channels=32, width=32, depth=3, num_keypoints=17)
        >>> features = torch.randn(1, 32, 100, 167)
        >>> params = torch.randn(2, spec.num_params)
        >>> locations = torch.tensor([[100.0, 200.0], [640.0, 360.0]])
        >>> image_index = torch.zeros(2, dtype=torch.int64)
        >>> kp_net_heatmaps(features, params, image_index, locations, torch.full((2,), 64.0), spec, stride=8).shape
        torch.Size([2, 17, 100, 167])
    """
    _check(features, params, image_index, locations, coord_scale, spec, stride)
    with torch.autocast(features.device.type, enabled=False):
        run = select_backend(backend, features, spec).heatmaps
        return run(features, params, image_index, locations, coord_scale, spec, stride)


def kp_net_peaks(
    features: torch.Tensor,
    params: torch.Tensor,
    image_index: torch.Tensor,
    locations: torch.Tensor,
    coord_scale: torch.Tensor,
    spec: KPNetSpec,
    stride: int,
    *,
    backend: str = "auto",
) -> KPNetPeaks:
    """Highest cell of every heatmap, its logit and its softmax probability, without holding the heatmaps.

    For inference: no gradient is recorded.

    Args:
        features, params, image_index, locations, coord_scale, spec, stride, backend: as in :func:`kp_net_heatmaps`.

    Returns:
        ``values`` (N, K), ``indices`` (N, K) int64 and ``confidence`` (N, K); see :class:`KPNetPeaks`.

    Raises:
        ValueError, TypeError: as :func:`kp_net_heatmaps`.
    """
    _check(features, params, image_index, locations, coord_scale, spec, stride)
    with torch.autocast(features.device.type, enabled=False):
        run = select_backend(backend, features, spec).peaks
        return run(features, params, image_index, locations, coord_scale, spec, stride)


def kp_net_cross_entropy(
    features: torch.Tensor,
    params: torch.Tensor,
    image_index: torch.Tensor,
    locations: torch.Tensor,
    coord_scale: torch.Tensor,
    spec: KPNetSpec,
    stride: int,
    targets: torch.Tensor,
    *,
    backend: str = "auto",
) -> torch.Tensor:
    """Softmax cross-entropy of every heatmap against one cell (FCPose Eq. 3, before the mean over keypoints).

    Differentiable in ``features`` and ``params``, also for N = 0 or when all targets are ignored: the gradients are
    then zero, and not missing.

    Args:
        features, params, image_index, locations, coord_scale, spec, stride, backend: as in :func:`kp_net_heatmaps`.
        targets: (N, K) int64, the keypoint's cell ``v * W + u``; negative for a keypoint to ignore.

    Returns:
        (N, K) losses ``logsumexp(logits) - logits[target]``, zero where ignored.

    Raises:
        ValueError, TypeError: as :func:`kp_net_heatmaps`.
    """
    _check(features, params, image_index, locations, coord_scale, spec, stride)
    _check_tensor("targets", targets, (len(params), spec.num_keypoints), features.device, torch.int64)
    _check_below("targets", targets, "H * W", features.shape[2] * features.shape[3])
    with torch.autocast(features.device.type, enabled=False):
        run = select_backend(backend, features, spec).cross_entropy
        return run(features, params, image_index, locations, coord_scale, spec, stride, targets)


def _check(features, params, image_index, locations, coord_scale, spec, stride):
    if features.dim() != 4 or features.shape[1] != spec.in_channels or 0 in features.shape:
        raise ValueError(f"features: expected shape (B, {spec.in_channels}, H, W), got {tuple(features.shape)}")
    if not features.is_floating_point():
        raise TypeError(f"features: expected a floating-point dtype, got {features.dtype}")
    if params.dim() != 2 or params.shape[1] != spec.num_params:
        raise ValueError(f"params: expected shape (N, {spec.num_params}) for {spec}, got {tuple(params.shape)}")
    n, device = len(params), features.device
    _check_tensor("params", params, (n, spec.num_params), device)
    _check_tensor("image_index", image_index, (n,), device, torch.int64)
    _check_tensor("locations", locations, (n, 2), device)
    _check_tensor("coord_scale", coord_scale, (n,), device)
    _check_below("image_index", image_index, "B", len(features))
    if _can_read(image_index) and image_index.min() < 0:
        raise ValueError(f"image_index: expected no negative value, got {int(image_index.min())}")
    if not isinstance(stride, int) or stride < 1:
        raise ValueError(f"stride: expected a positive int, got {stride!r}")


def _check_tensor(name, tensor, shape, device, dtype=None):
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name}: expected device {device} as for features, got {tensor.device}")
    if dtype is not None and tensor.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {tensor.dtype}")
    if dtype is None and not tensor.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, got {tensor.dtype}")


def _check_below(name, index, letter, limit):
    if _can_read(index) and index.max() >= limit:
        raise ValueError(f"{name}: expected values below {letter} = {limit}, got {int(index.max())}")


def _can_read(index):
    # Reading a value makes the host wait for a CUDA device, and breaks a graph that is being compiled.
    return index.device.type == "cpu" and index.numel() > 0 and not torch.compiler.is_compiling()
