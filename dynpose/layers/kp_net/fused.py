"""The KP-Net operator with Triton kernels, as custom torch operators.

Intermediate values stay on the chip: no hidden map is written to memory, and for peaks and cross-entropy no heatmap
either. The backward pass recomputes the hidden values tile by tile.

The gradient of the features is a sum over the instances of an image, and that of the parameters a sum over the cells.
With ``torch.use_deterministic_algorithms(True)``, both are summed in a fixed order: a second kernel iterates over the
instances again for the features, and each range of cells writes a separate part of the parameters' gradient. Otherwise
one kernel computes both with atomic additions, whose order, and so the last bits of the result, vary between runs.
Block sizes are then also autotuned, at the first call for a bucket of shapes, so that the last bits differ between
processes.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import torch
import triton
from triton.runtime.errors import OutOfResources

from dynpose.layers.triton_support import dot_precision, interprets, num_multiprocessors

from . import kernels
from .spec import KPNetPeaks, KPNetSpec

if TYPE_CHECKING:
    from .nets import KPNets

# The kernels' on-chip memory grows with these.
MAX_CHANNELS = 64
MAX_DEPTH = 4
# A cell's row is computed by a float32 product, which is exact up to this number of cells.
MAX_CELLS = 2**21
# Maximum keypoints per block; more need several blocks, each of which computes the hidden layers.
_MAX_K_BLOCK = 32
# The map is split into more ranges while there are fewer thread blocks per multiprocessor than this.
_BLOCKS_PER_MULTIPROCESSOR = 6


def unavailable_reason(features: torch.Tensor, spec: KPNetSpec) -> str | None:
    """Return the reason why the kernels cannot run KP-Nets of this shape on these maps; None if they can."""
    if spec.in_channels > MAX_CHANNELS or (spec.depth > 1 and spec.width > MAX_CHANNELS):
        return f"the kernels support at most {MAX_CHANNELS} channels, but the KP-Net is {spec}"
    if spec.depth > MAX_DEPTH:
        return f"the kernels support at most {MAX_DEPTH} layers, but the KP-Net is {spec}"
    if features.shape[2] * features.shape[3] > MAX_CELLS:
        return f"the kernels support maps of at most {MAX_CELLS} cells"
    return None


# --- entry points: arguments as in operator.py, already checked ---


@torch.no_grad()
def fused_kp_net_peaks(nets: KPNets) -> KPNetPeaks:
    """Peak of every heatmap. See :func:`dynpose.layers.kp_net.kp_net_peaks`."""
    return KPNetPeaks(*torch.ops.dynpose.kp_net_peaks(*_tensors(nets), _pack(nets.spec), nets.stride))


def fused_kp_net_cross_entropy(nets: KPNets, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every heatmap. See :func:`dynpose.layers.kp_net.kp_net_cross_entropy`."""
    losses, _ = torch.ops.dynpose.kp_net_cross_entropy(*_tensors(nets), targets, _pack(nets.spec), nets.stride)
    return losses


def fused_kp_net_heatmaps(nets: KPNets) -> torch.Tensor:
    """Logits of every cell. See :func:`dynpose.layers.kp_net.kp_net_heatmaps`."""
    return torch.ops.dynpose.kp_net_heatmaps(*_tensors(nets), _pack(nets.spec), nets.stride)


def _tensors(nets):
    """The tensors of the networks, all but the features in float32."""
    locations, coord_scale = nets.locations.detach().float(), nets.coord_scale.detach().float()
    return nets.features, nets.params.float(), nets.image_index, locations, coord_scale


def _pack(spec):
    """Pack a spec into a list of ints, which a torch operator accepts."""
    first = int(spec.coords_position == "first")
    return [spec.in_channels, spec.width, spec.depth, spec.num_keypoints, first, spec.coords_sign]


def _unpack(packed):
    in_channels, width, depth, num_keypoints, first, coords_sign = packed
    return KPNetSpec(in_channels, width, depth, num_keypoints, "first" if first else "last", coords_sign)


# --- launching ---


def _next_power_of_2(size, at_least=16):
    return max(at_least, triton.next_power_of_2(size))


def _bucket(size):
    """Round up to a size whose tuning is shared: 8, 64, 512, ..."""
    bucket = 8
    while bucket < size:
        bucket *= 8
    return bucket


class _Launch:
    """The arguments that the kernels share in one call of an operator.

    Args:
        features: (B, C, H, W).
        params, image_index, locations, coord_scale: as in operator.py; float32.
        packed: the spec, see :func:`_pack`.
        stride: pixels.
    """

    def __init__(
        self,
        features: torch.Tensor,
        params: torch.Tensor,
        image_index: torch.Tensor,
        locations: torch.Tensor,
        coord_scale: torch.Tensor,
        packed: list[int],
        stride: int,
    ):
        spec = _unpack(packed)
        self.num_images, self.channels, self.height, self.width = features.shape
        self.num_instances, self.num_keypoints = len(params), spec.num_keypoints
        self.num_cells = self.height * self.width
        self.device = features.device
        self.instances = (
            params.contiguous(),
            image_index.contiguous(),
            locations.contiguous(),
            coord_scale.contiguous(),
        )
        k_block = min(_next_power_of_2(spec.num_keypoints), _MAX_K_BLOCK)
        self.k_blocks = triton.cdiv(spec.num_keypoints, k_block)
        programs = self.num_instances * self.k_blocks
        wanted = _BLOCKS_PER_MULTIPROCESSOR * num_multiprocessors(self.device)
        tiles = triton.cdiv(self.num_cells, 128)
        self.splits = max(1, min(triton.cdiv(wanted, max(1, programs)), tiles))
        self.map = (self.num_cells, self.width, stride)
        self.buckets = (_bucket(self.num_cells), _bucket(self.num_instances))
        self.meta = {
            "C": spec.in_channels,
            "WIDTH": spec.width if spec.depth > 1 else 0,
            "DEPTH": spec.depth,
            "K": spec.num_keypoints,
            "P": spec.num_params,
            "COORDS_FIRST": spec.coords_position == "first",
            "COORDS_SIGN": spec.coords_sign,
            "C_PAD": _next_power_of_2(spec.in_channels),
            "WIDTH_PAD": _next_power_of_2(spec.width),
            "K_BLOCK": k_block,
            "PRECISION": dot_precision(features.dtype),
        }
        self.features = self._by_cell(features)

    def _by_cell(self, features):
        """The features as (B, H, W, C): the channels of a cell are contiguous, so that loads of a tile are wide.

        No copy if the memory format is channels_last and no rounding is needed; float16 values are exact in TF32.
        """
        by_cell = features.permute(0, 2, 3, 1)
        if self.meta["PRECISION"] != "tf32" or features.dtype != torch.float32:
            return by_cell.contiguous()
        channels_last = by_cell.is_contiguous()
        source = features if channels_last else features.contiguous()
        rounded = torch.empty_like(by_cell, memory_format=torch.contiguous_format)
        meta = {"C": self.meta["C"], "C_PAD": self.meta["C_PAD"], "CHANNELS_LAST": channels_last, **_ROUND}
        grid = (triton.cdiv(self.num_cells, _ROUND["BLOCK"]), self.num_images)
        with torch.cuda.device_of(features):
            kernels.round_kernel[grid](source, rounded, self.num_cells, **meta)
        return rounded

    @property
    def grid(self):
        return (self.num_instances * self.k_blocks, self.splits)

    def empty(self, *shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device=self.device)


def _config(block, warps, registers=None):
    return triton.Config({"BLOCK": block}, num_warps=warps, num_stages=2, maxnreg=registers)


# The autotuning candidates. Fewer registers let more programs share a multiprocessor but cause some spilling. A program
# of one warp never waits at a barrier.
_FORWARD = [_config(64, 4), _config(64, 4, registers=128), _config(128, 8, registers=128), _config(32, 2)]
_BACKWARD = [_config(16, 1), _config(16, 2), _config(32, 2), _config(64, 4)]


# The configurations without autotuning: for deterministic results, in the interpreter, and where no other fits.
def _fixed(meta):
    wide = max(meta["C_PAD"], meta["WIDTH_PAD"]) > 32
    return {"BLOCK": 64, "num_warps": 8 if wide else 4, "num_stages": 1}


_FIXED_BACKWARD = {"BLOCK": 16, "num_warps": 4, "num_stages": 1}
_MERGE = {"BLOCK": 128}
_ROUND = {"BLOCK": 64}
_KEY = ["cells_bucket", "instances_bucket", "C", "WIDTH", "DEPTH", "K", "PRECISION", "MODE"]


def _do_bench(kernel_call, quantiles):
    # Short: a new bucket of shapes must not stall training for seconds.
    return triton.testing.do_bench(kernel_call, warmup=3, rep=15, quantiles=quantiles)


def _autotune(kernel, configs, **options):
    # Timings are cached on disk beside the compiled kernels, so that the next process does not tune again.
    return triton.autotune(configs, key=_KEY, do_bench=_do_bench, cache_results=True, **options)(kernel)


_tuned_forward = _autotune(kernels.forward_kernel, _FORWARD)
_tuned_backward = _autotune(kernels.backward_kernel, _BACKWARD, reset_to_zero=["grad_features", "grad_params"])


def _run(kernel, tuned, fixed, grid, arguments, meta):
    """Launch a kernel: the tuned form, if it has one and results may depend on timings, else the fixed form.

    On the matrix units, wide and deep KP-Nets need more shared memory than some GPUs have. Those GPUs run without them.
    """
    with torch.cuda.device_of(arguments[0]):
        try:
            if tuned is None or interprets() or torch.are_deterministic_algorithms_enabled():
                kernel[grid](*arguments, **meta, **fixed)
            else:
                tuned[grid](*arguments, **meta)
        except OutOfResources as error:
            _warn_of_small_memory(str(error))
            kernel[grid](*arguments, **{**meta, "PRECISION": "ieee"}, **_FIXED_BACKWARD)


@functools.cache
def _warn_of_small_memory(reason):
    """Warn once that a kernel runs without the matrix units."""
    logging.getLogger(__name__).warning("A KP-Net kernel runs more slowly, without the matrix units: %s", reason)


def _forward(launch, mode, targets=None, heatmaps=None):
    """Run the forward kernel and merge its ranges.

    Returns:
        (values, indices, confidence) for mode "peaks", (losses, log_sums) for "cross_entropy", each (N, K); () for
        "heatmaps", which are written into ``heatmaps``.
    """
    num_heatmaps = launch.num_instances * launch.num_keypoints
    parts = (launch.splits, launch.num_instances, launch.num_keypoints)
    peaks = mode == "peaks"
    with_parts = mode != "heatmaps"
    part_max, part_sum = (launch.empty(*parts) if with_parts else None for _ in range(2))
    part_cell = launch.empty(*parts, dtype=torch.int32) if peaks else None
    part_target = launch.empty(*parts) if mode == "cross_entropy" else None
    arguments = (launch.features, *launch.instances, targets, part_max, part_sum, part_cell, part_target, heatmaps)
    sizes = (launch.num_instances, *launch.map, launch.splits, *launch.buckets)
    meta = {**launch.meta, "MODE": mode}
    _run(kernels.forward_kernel, _tuned_forward, _fixed(meta), launch.grid, (*arguments, *sizes), meta)
    if not with_parts:
        return ()

    shape = parts[1:]
    results = [launch.empty(*shape) for _ in range(2)]
    if peaks:
        values, confidence = results
        indices = launch.empty(*shape, dtype=torch.int64)
        outputs = (values, indices, confidence, None, None)
    else:
        outputs = (None, None, None, *results)
    arguments = (part_max, part_sum, part_cell, part_target, targets, *outputs, num_heatmaps, launch.splits)
    grid = (triton.cdiv(num_heatmaps, _MERGE["BLOCK"]),)
    _run(kernels.merge_kernel, None, _MERGE, grid, arguments, {"MODE": mode})
    return tuple(output for output in outputs if output is not None)


def _backward(launch, mode, grad, targets, log_sums, with_features, with_params):
    """Run the backward kernels.

    Returns:
        Gradients of the features (B, C, H, W) and of the parameters (N, P), float32; empty tensors if not requested.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    shape = launch.features.shape if with_features else (0,)
    grad_features = torch.zeros(shape, device=launch.device)
    num_params = launch.meta["P"]
    if not with_params:
        grad_params = launch.empty(0)
    elif deterministic:
        parts = (launch.splits * launch.k_blocks, launch.num_instances, num_params)
        grad_params = torch.zeros(parts, device=launch.device)
    else:
        grad_params = torch.zeros((launch.num_instances, num_params), device=launch.device)

    inputs = (targets, log_sums, grad.contiguous())
    meta = {**launch.meta, "MODE": mode}
    if launch.num_instances and (with_params or not deterministic):
        sizes = (launch.num_instances, *launch.map, launch.splits, *launch.buckets)
        choices = {
            "WITH_FEATURES": with_features and not deterministic,
            "WITH_PARAMS": with_params,
            "ATOMIC": not deterministic,
        }
        arguments = (launch.features, *launch.instances, *inputs, grad_features, grad_params, *sizes)
        meta_of_both = {**meta, **choices}
        _run(kernels.backward_kernel, _tuned_backward, _FIXED_BACKWARD, launch.grid, arguments, meta_of_both)
    if launch.num_instances and with_features and deterministic:
        params, image_index, locations, coord_scale = launch.instances
        by_image, order = image_index.sort(stable=True)
        images = torch.arange(launch.num_images + 1, device=launch.device)
        starts = torch.searchsorted(by_image, images)
        arguments = (launch.features, params, locations, coord_scale, *inputs, order, starts, grad_features)

        def grid(meta):
            return triton.cdiv(launch.num_cells, meta["BLOCK"]), launch.num_images

        _run(kernels.feature_gradient_kernel, None, _fixed(meta), grid, (*arguments, *launch.map), meta)

    if with_params and deterministic:
        grad_params = grad_params.sum(dim=0)
    if with_features:
        grad_features = grad_features.permute(0, 3, 1, 2)
    return grad_features, grad_params


# --- custom operators ---


@torch.library.custom_op("dynpose::kp_net_peaks", mutates_args=())
def _peaks_op(
    features: torch.Tensor, params: torch.Tensor, image_index: torch.Tensor, locations: torch.Tensor,
    coord_scale: torch.Tensor, spec: list[int], stride: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    if len(params) == 0:
        return _peaks_fake(features, params, image_index, locations, coord_scale, spec, stride)
    return _forward(_Launch(features, params, image_index, locations, coord_scale, spec, stride), "peaks")


@_peaks_op.register_fake
def _peaks_fake(features, params, image_index, locations, coord_scale, spec, stride):
    shape = (params.shape[0], spec[3])
    return params.new_empty(shape), image_index.new_empty(shape), params.new_empty(shape)


@torch.library.custom_op("dynpose::kp_net_cross_entropy", mutates_args=())
def _cross_entropy_op(
    features: torch.Tensor, params: torch.Tensor, image_index: torch.Tensor, locations: torch.Tensor,
    coord_scale: torch.Tensor, targets: torch.Tensor, spec: list[int], stride: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    if len(params) == 0:
        return _cross_entropy_fake(features, params, image_index, locations, coord_scale, targets, spec, stride)
    launch = _Launch(features, params, image_index, locations, coord_scale, spec, stride)
    return _forward(launch, "cross_entropy", targets=targets.contiguous())


@_cross_entropy_op.register_fake
def _cross_entropy_fake(features, params, image_index, locations, coord_scale, targets, spec, stride):
    return params.new_empty(targets.shape), params.new_empty(targets.shape)


@torch.library.custom_op("dynpose::kp_net_heatmaps", mutates_args=())
def _heatmaps_op(
    features: torch.Tensor, params: torch.Tensor, image_index: torch.Tensor, locations: torch.Tensor,
    coord_scale: torch.Tensor, spec: list[int], stride: int,
) -> torch.Tensor:  # fmt: skip
    heatmaps = _heatmaps_fake(features, params, image_index, locations, coord_scale, spec, stride)
    if len(params):
        launch = _Launch(features, params, image_index, locations, coord_scale, spec, stride)
        _forward(launch, "heatmaps", heatmaps=heatmaps)
    return heatmaps


@_heatmaps_op.register_fake
def _heatmaps_fake(features, params, image_index, locations, coord_scale, spec, stride):
    return params.new_empty((params.shape[0], spec[3], *features.shape[2:]))


@torch.library.custom_op("dynpose::kp_net_backward", mutates_args=())
def _backward_op(
    grad: torch.Tensor, features: torch.Tensor, params: torch.Tensor, image_index: torch.Tensor,
    locations: torch.Tensor, coord_scale: torch.Tensor, targets: torch.Tensor | None, log_sums: torch.Tensor | None,
    spec: list[int], stride: int, with_features: bool, with_params: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    launch = _Launch(features, params, image_index, locations, coord_scale, spec, stride)
    mode = "heatmaps" if targets is None else "cross_entropy"
    grad_features, grad_params = _backward(launch, mode, grad, targets, log_sums, with_features, with_params)
    return grad_features.to(features.dtype), grad_params


@_backward_op.register_fake
def _backward_fake(
    grad,
    features,
    params,
    image_index,
    locations,
    coord_scale,
    targets,
    log_sums,
    spec,
    stride,
    with_features,
    with_params,
):
    grad_features, grad_params = features.new_empty(0), params.new_empty(0)
    if with_features:
        # the memory format of _backward's result
        grad_features = torch.empty_like(features.permute(0, 2, 3, 1), memory_format=torch.contiguous_format)
        grad_features = grad_features.permute(0, 3, 1, 2)
    if with_params:
        grad_params = torch.empty_like(params, memory_format=torch.contiguous_format)
    return grad_features, grad_params


def _keep_cross_entropy(ctx, inputs, output):
    features, params, image_index, locations, coord_scale, targets, ctx.spec, ctx.stride = inputs
    _, log_sums = output
    ctx.mark_non_differentiable(log_sums)
    ctx.save_for_backward(features, params, image_index, locations, coord_scale, targets, log_sums)


def _keep_heatmaps(ctx, inputs, output):
    features, params, image_index, locations, coord_scale, ctx.spec, ctx.stride = inputs
    ctx.save_for_backward(features, params, image_index, locations, coord_scale, None, None)


def _differentiate(ctx, grad, *_):
    with_features, with_params = ctx.needs_input_grad[:2]
    grad_features, grad_params = torch.ops.dynpose.kp_net_backward(
        grad, *ctx.saved_tensors, ctx.spec, ctx.stride, with_features, with_params
    )
    gradients = (grad_features if with_features else None, grad_params if with_params else None)
    return (*gradients, *(None for _ in ctx.needs_input_grad[2:]))


_cross_entropy_op.register_autograd(_differentiate, setup_context=_keep_cross_entropy)
_heatmaps_op.register_autograd(_differentiate, setup_context=_keep_heatmaps)
