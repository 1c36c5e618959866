"""The public KP-Net operator: dispatches the networks to a backend.

All three functions compute in float32 (in float64 if features or parameters are), inside or outside autocast. On a
GPU's matrix units, the factors of products are rounded as in PyTorch: to TF32 where
``torch.backends.cuda.matmul.allow_tf32`` is set; the fused kernels also round to bfloat16 for bfloat16 features and to
TF32 for float16 ones. Sums and coordinates are float32.

A backend implements them under these names, see :mod:`dynpose.layers.backends`. An implementation takes the function's
arguments by position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dynpose.layers.backends import Implementation, register_backend, select_backend
from dynpose.layers.tensor_checks import check_below, check_tensor
from dynpose.layers.triton_support import triton, triton_unavailable_reason
from dynpose.utils.exporting import is_recording, without_autocast

from . import at_once, native, reference
from .spec import KPNetPeaks

if triton is not None:
    from . import fused
if TYPE_CHECKING:
    from .nets import KPNets


def kp_net_heatmaps(nets: KPNets) -> torch.Tensor:
    """Heatmaps of all instances. Differentiable in ``features`` and ``params``.

    Prefer :func:`kp_net_peaks` for inference and :func:`kp_net_cross_entropy` for training: they do not store the
    N x K x H x W values that this function returns.

    Args:
        nets: N networks, checked by :class:`~dynpose.layers.KPNets`.

    Returns:
        (N, K, H, W) logits, float32 or float64.

    Example::

        >>> spec = KPNetSpec(in_channels=32, width=32, depth=3, num_keypoints=17)
        >>> nets = KPNets(
        ...     features=torch.randn(1, 32, 100, 167),
        ...     params=torch.randn(2, spec.num_params),
        ...     image_index=torch.zeros(2, dtype=torch.int64),
        ...     locations=torch.tensor([[100.0, 200.0], [640.0, 360.0]]),
        ...     coord_scale=torch.full((2,), 64.0),
        ...     spec=spec,
        ...     stride=8,
        ... )
        >>> kp_net_heatmaps(nets).shape
        torch.Size([2, 17, 100, 167])
    """
    return _run("kp_net_heatmaps", nets)


def kp_net_peaks(nets: KPNets) -> KPNetPeaks:
    """Highest cell of every heatmap, its logit and its softmax probability, without storing the heatmaps.

    For inference: not differentiable.

    Args:
        nets: N networks.

    Returns:
        ``values`` (N, K), ``indices`` (N, K) int64 and ``confidence`` (N, K); see :class:`KPNetPeaks`.
    """
    return _run("kp_net_peaks", nets)


def kp_net_cross_entropy(nets: KPNets, targets: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy of every heatmap against one cell (FCPose Eq. 3, before the mean over keypoints).

    Differentiable in ``features`` and ``params``. For N = 0, or if all targets are ignored, the gradients are zero
    rather than None.

    Args:
        nets: N networks.
        targets: (N, K) int64, the keypoint's cell ``v * W + u``; negative for a keypoint to ignore.

    Returns:
        (N, K) losses ``logsumexp(logits) - logits[target]``, zero where ignored.

    Raises:
        ValueError: if the shape, device or a value of ``targets`` is invalid.
        TypeError: if their dtype is.
    """
    height, width = nets.size
    like = ("features", nets.features)
    check_tensor("targets", targets, (len(nets), nets.spec.num_keypoints), like, torch.int64)
    check_below("targets", targets, "H * W", height * width)
    return _run("kp_net_cross_entropy", nets, targets)


def _run(operator, nets, *arguments):
    device = nets.features.device
    with without_autocast(device):
        if is_recording():
            # FLOP counters and exporters read the graph: it must hold PyTorch's own operators
            return _OF_GRAPHS[operator](nets, *arguments)
        return select_backend(operator, nets.backend, device, nets, *arguments)(nets, *arguments)


# Operators of graphs: the number of networks may be unknown
_OF_GRAPHS = {
    "kp_net_heatmaps": at_once.kp_net_heatmaps,
    "kp_net_peaks": at_once.kp_net_peaks,
    "kp_net_cross_entropy": reference._kp_net_cross_entropy,
}


def _fused_implementation(function):
    """Register ``function``, which looks a kernel up only when it runs: without Triton, its module does not exist."""
    return Implementation(function, _fused_unavailable_reason, ("cuda",))


def _fused_unavailable_reason(nets, *_):
    return triton_unavailable_reason(nets.features) or fused.unavailable_reason(nets.features, nets.spec)


def _native_implementation(function):
    """Register ``function`` for "auto" on a CPU where its code was compiled."""
    return Implementation(function, _native_unavailable_reason, ("cpu",) if native.is_built() else ())


def _native_unavailable_reason(nets, *_):
    return native.unavailable_reason(nets.features, nets.params)


def _register():
    """Register the backends of this package; "auto" tries the last one first."""
    register_backend(
        "torch",
        {
            "kp_net_heatmaps": Implementation(reference._kp_net_heatmaps, devices=None),
            "kp_net_peaks": Implementation(reference._kp_net_peaks, devices=None),
            "kp_net_cross_entropy": Implementation(reference._kp_net_cross_entropy, devices=None),
        },
    )
    register_backend(
        "triton",
        {
            "kp_net_heatmaps": _fused_implementation(lambda nets: fused.fused_kp_net_heatmaps(nets)),
            "kp_net_peaks": _fused_implementation(lambda nets: fused.fused_kp_net_peaks(nets)),
            "kp_net_cross_entropy": _fused_implementation(
                lambda nets, targets: fused.fused_kp_net_cross_entropy(nets, targets)
            ),
        },
    )
    register_backend(
        "native",
        {
            "kp_net_heatmaps": _native_implementation(native.native_kp_net_heatmaps),
            "kp_net_peaks": _native_implementation(native.native_kp_net_peaks),
            "kp_net_cross_entropy": _native_implementation(native.native_kp_net_cross_entropy),
        },
    )


_register()
