"""The KP-Net operator with compiled code for a CPU (``_native.cpp``), as custom torch operators.

Intermediate values stay in the caches: no hidden map is written to memory, and for peaks and cross-entropy no heatmap
either. The backward pass recomputes the hidden values tile by tile. Results do not depend on the number of threads.

``setup.py`` compiles the code where a C++ compiler with OpenMP is found. It is called through ctypes, so that it
depends on the version of neither Python nor torch. It shares torch's pool of OpenMP threads: torch is imported first
and has loaded the library of OpenMP that the code is linked to.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
from typing import TYPE_CHECKING

import torch

from . import reference
from .spec import KPNetPeaks

if TYPE_CHECKING:
    from .nets import KPNets


class _Sizes(ctypes.Structure):
    """The struct of the same name in the C++ code."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("num_nets", "num_cells", "channels", "width", "depth", "num_keypoints", "threads")
    )


def _variants():
    """The variants of the compiled code that the processor runs, fastest first; torch has asked it already."""
    wider = {"AVX512": ("_native_avx512", "_native_avx2"), "AVX2": ("_native_avx2",)}
    return (*wider.get(torch.backends.cpu.get_cpu_capability(), ()), "_native")


@functools.cache
def _library():
    """Load the fastest variant that was built; None if there is none."""
    loaded = (_load(name) for name in _variants())
    return next((library for library in loaded if library), None)


def _load(name):
    """Load a variant; None if it was not built or cannot be loaded."""
    spec = importlib.util.find_spec(f"{__package__}.{name}")
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as error:
        logging.getLogger(__name__).warning("The KP-Net operator's compiled code cannot be loaded: %s", error)
        return None
    pointer, sizes = ctypes.c_void_p, ctypes.POINTER(_Sizes)
    library.kp_net_forward.argtypes = [pointer, pointer, pointer, sizes, *[pointer] * 6]
    library.kp_net_backward.argtypes = [pointer, pointer, pointer, sizes, *[pointer] * 5]
    library.kp_net_pack.argtypes = [pointer, *[ctypes.c_int64] * 4, pointer]
    library.kp_net_pack.restype = None
    library.kp_net_tile.restype = ctypes.c_int64
    return library


@torch.compiler.assume_constant_result
def is_built() -> bool:
    """Whether the compiled code is there and can be loaded."""
    return _library() is not None


def unavailable_reason(features: torch.Tensor, params: torch.Tensor) -> str | None:
    """Return the reason why the compiled code cannot run on these features and parameters; None if it can."""
    if not is_built():
        return "it was not compiled when dynpose was installed"
    if features.device.type != "cpu":
        return f"there is no kernel for {features.device.type}"
    if torch.float64 in (features.dtype, params.dtype):
        return "there is no kernel for torch.float64"
    return None


# --- entry points: arguments as in operator.py, already checked ---


@torch.no_grad()
def native_kp_net_peaks(nets: KPNets) -> KPNetPeaks:
    """Peak of every heatmap. See :func:`dynpose.layers.kp_net.kp_net_peaks`."""
    return KPNetPeaks(*torch.ops.dynpose.native_kp_net_peaks(*_arguments(nets)))


def native_kp_net_cross_entropy(nets: KPNets, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every heatmap. See :func:`dynpose.layers.kp_net.kp_net_cross_entropy`."""
    losses, _ = torch.ops.dynpose.native_kp_net_cross_entropy(*_arguments(nets), targets)
    return losses


def native_kp_net_heatmaps(nets: KPNets) -> torch.Tensor:
    """Logits of every cell. See :func:`dynpose.layers.kp_net.kp_net_heatmaps`."""
    return torch.ops.dynpose.native_kp_net_heatmaps(*_arguments(nets))


def _arguments(nets):
    """The arguments of the custom operators: features, weights, image_index, sizes.

    The weights of an instance are those of :func:`reference._fold_coordinates`, packed as in the spec: the coordinates
    of a cell in strides from the middle of the map replace the relative ones, and follow the features.
    """
    spec = nets.spec
    params, locations, coord_scale = nets.params.float(), nets.locations.float(), nets.coord_scale.float()
    layers = reference._fold_coordinates(params, locations, coord_scale, spec, nets.stride, *nets.size)
    weights = torch.cat([piece.flatten(1) for layer in layers for piece in layer], dim=1)
    sizes = [spec.in_channels, spec.width, spec.depth, spec.num_keypoints]
    return nets.features.float(), weights, nets.image_index, sizes


# --- calling the compiled code ---


def _by_tile(features, threads):
    """Features and coordinates as (B, T, C + 2, cells of a tile), zero beyond the map."""
    num_images, channels, height, width = features.shape
    tile = _library().kp_net_tile()
    inputs = features.new_empty(num_images, -(-height * width // tile), channels + 2, tile)
    for of_image, to in zip(features.contiguous(), inputs):
        _library().kp_net_pack(of_image.data_ptr(), channels, height, width, threads, to.data_ptr())
    return inputs


def _call(function, features, weights, image_index, sizes, *tensors):
    """Call a function of the compiled code with pointers to contiguous tensors, or None."""
    threads = torch.get_num_threads()
    of_call = _Sizes(len(weights), features.shape[2] * features.shape[3], *sizes, threads)
    inputs = (_by_tile(features, threads), weights.contiguous(), image_index.contiguous())
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    if function(*(tensor.data_ptr() for tensor in inputs), of_call, *pointers):
        raise MemoryError("the KP-Net operator needs more memory than is free")


def _forward(features, weights, image_index, sizes, targets=None):
    """Peaks: highest logits, sums of exp(logit - highest) and cells, (N, K) each; and the logits at the targets."""
    shape = (len(weights), sizes[-1])
    highest, sums, at_target = (weights.new_empty(shape) for _ in range(3))
    cells = image_index.new_empty(shape)
    if targets is not None:
        targets = targets.contiguous()
        at_target.zero_()  # ignored ones are not written
    outputs = (highest, sums, cells, at_target, None)
    _call(_library().kp_net_forward, features, weights, image_index, sizes, targets, *outputs)
    return highest, sums, cells, at_target


# --- custom operators ---


@torch.library.custom_op("dynpose::native_kp_net_peaks", mutates_args=())
def _peaks_op(
    features: torch.Tensor, weights: torch.Tensor, image_index: torch.Tensor, sizes: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    highest, sums, cells, _ = _forward(features, weights, image_index, sizes)
    # If all logits are -inf, the softmax is undefined.
    return highest, cells, torch.where(highest == -torch.inf, torch.nan, sums.reciprocal())


@_peaks_op.register_fake
def _peaks_fake(features, weights, image_index, sizes):
    shape = (weights.shape[0], sizes[-1])
    return weights.new_empty(shape), image_index.new_empty(shape), weights.new_empty(shape)


@torch.library.custom_op("dynpose::native_kp_net_cross_entropy", mutates_args=())
def _cross_entropy_op(
    features: torch.Tensor, weights: torch.Tensor, image_index: torch.Tensor, sizes: list[int], targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    highest, sums, _, at_target = _forward(features, weights, image_index, sizes, targets)
    log_sums = torch.where(highest.isinf(), highest, highest + sums.log())
    return torch.where(targets >= 0, log_sums - at_target, 0.0), log_sums


@_cross_entropy_op.register_fake
def _cross_entropy_fake(features, weights, image_index, sizes, targets):
    return weights.new_empty(targets.shape), weights.new_empty(targets.shape)


@torch.library.custom_op("dynpose::native_kp_net_heatmaps", mutates_args=())
def _heatmaps_op(
    features: torch.Tensor, weights: torch.Tensor, image_index: torch.Tensor, sizes: list[int]
) -> torch.Tensor:
    heatmaps = _heatmaps_fake(features, weights, image_index, sizes)
    _call(_library().kp_net_forward, features, weights, image_index, sizes, None, None, None, None, None, heatmaps)
    return heatmaps


@_heatmaps_op.register_fake
def _heatmaps_fake(features, weights, image_index, sizes):
    return weights.new_empty((weights.shape[0], sizes[-1], *features.shape[2:]))


@torch.library.custom_op("dynpose::native_kp_net_backward", mutates_args=())
def _backward_op(
    grad: torch.Tensor, features: torch.Tensor, weights: torch.Tensor, image_index: torch.Tensor, sizes: list[int],
    targets: torch.Tensor | None, log_sums: torch.Tensor | None, with_features: bool, with_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    num_images, channels, height, width = features.shape
    tile = _library().kp_net_tile()
    num_tiles = -(-height * width // tile)
    if targets is not None:
        grad, targets = torch.where(targets >= 0, grad, 0.0), targets.contiguous()
    grad_features = features.new_zeros(num_images, num_tiles, channels, tile) if with_features else None
    grad_weights = weights.new_zeros(weights.shape) if with_weights else None
    gradients = (grad.contiguous(), targets, log_sums, grad_features, grad_weights)
    _call(_library().kp_net_backward, features, weights, image_index, sizes, *gradients)
    if grad_features is None:
        grad_features = features.new_empty(0)
    else:
        in_map = grad_features.transpose(1, 2).flatten(2)[:, :, : height * width]
        grad_features = in_map.unflatten(2, (height, width)).contiguous()
    return grad_features, weights.new_empty(0) if grad_weights is None else grad_weights


@_backward_op.register_fake
def _backward_fake(
    grad, features, weights, image_index, sizes, targets, log_sums, with_features, with_weights
):  # fmt: skip
    return (
        features.new_empty(features.shape if with_features else 0),
        weights.new_empty(weights.shape if with_weights else 0),
    )


def _keep_cross_entropy(ctx, inputs, output):
    features, weights, image_index, ctx.sizes, targets = inputs
    _, log_sums = output
    ctx.mark_non_differentiable(log_sums)
    ctx.save_for_backward(features, weights, image_index, targets, log_sums)


def _keep_heatmaps(ctx, inputs, output):
    features, weights, image_index, ctx.sizes = inputs
    ctx.save_for_backward(features, weights, image_index, None, None)


def _differentiate(ctx, grad, *_):
    with_features, with_weights = ctx.needs_input_grad[:2]
    features, weights, image_index, targets, log_sums = ctx.saved_tensors
    grad_features, grad_weights = torch.ops.dynpose.native_kp_net_backward(
        grad, features, weights, image_index, ctx.sizes, targets, log_sums, with_features, with_weights
    )
    gradients = (grad_features if with_features else None, grad_weights if with_weights else None)
    return (*gradients, *(None for _ in ctx.needs_input_grad[2:]))


_cross_entropy_op.register_autograd(_differentiate, setup_context=_keep_cross_entropy)
_heatmaps_op.register_autograd(_differentiate, setup_context=_keep_heatmaps)
