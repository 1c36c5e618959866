"""The fused kernels: in Triton's interpreter on the CPU, compiled for GPUs that are not at hand, and on a GPU."""

import logging

import numpy as np
import pytest
import torch
from compiled_kernels import compile_report
from test_kp_net import (
    FCPOSE,
    check_one_graph,
    cross_entropy_of,
    direct_heatmaps,
    gradients,
    heatmaps_of,
    make_inputs,
    peaks_of,
    random_targets,
)
from torch.testing._internal.optests import opcheck

from dynpose.layers import KPNets, KPNetSpec, backends, triton_support
from dynpose.layers.kp_net import reference

fused = pytest.importorskip("dynpose.layers.kp_net.fused", reason="Triton is not installed")

INSPOSE = KPNetSpec(in_channels=8, width=8, depth=3, num_keypoints=17)
SPECS = [
    FCPOSE,
    INSPOSE,
    KPNetSpec(16, 99, 1, 33, coords_position="last"),  # two blocks of keypoints
    KPNetSpec(9, 24, 2, 1, coords_sign=1),
    KPNetSpec(20, 16, 4, 40, coords_position="last", coords_sign=1),
    KPNetSpec(64, 64, 4, 5),
    KPNetSpec(8, 8, 2, 133),
]
WIDEST = KPNetSpec(64, 64, 4, 133)
SIZE = (9, 15)  # three tiles of 64 cells, in two ranges

needs_interpreter = pytest.mark.skipif(
    not triton_support.interprets(), reason="Triton compiles for the GPU here: no kernels for CPU tensors"
)


def to(inputs, dtype, device="cpu"):
    """Inputs of the operator with all numbers float32, but for the features' dtype."""
    features, params, image_index, locations, coord_scale, *rest = inputs
    params, locations, coord_scale = (x.float().to(device) for x in (params, locations, coord_scale))
    return features.to(device, dtype), params, image_index.to(device), locations, coord_scale, *rest


def to_double(inputs):
    """The same numbers, after rounding, for the reference."""
    return tuple(x.double().cpu() if torch.is_tensor(x) and x.is_floating_point() else x for x in _cpu(inputs))


def _cpu(inputs):
    return tuple(x.detach().cpu() if torch.is_tensor(x) else x for x in inputs)


def error(actual, expected):
    """Largest error relative to the largest value."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    return ((actual.detach().double().cpu() - expected).abs().max() / expected.abs().max()).item()


def norm_error(actual, expected):
    """Error of a gradient as a whole: with rounded products, a ReLU near zero flips and moves single elements."""
    assert actual.shape == expected.shape
    # a map of one cell has no gradient at all
    return ((actual.double().cpu() - expected).norm() / expected.norm().clamp(min=1e-12)).item()


@pytest.fixture
def set_tf32():
    """Allow or forbid TF32; as before when the test is over."""
    before = torch.backends.cuda.matmul.fp32_precision

    def choose(allowed):
        torch.backends.cuda.matmul.fp32_precision = "tf32" if allowed else "ieee"

    yield choose
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.fixture
def deterministic():
    yield lambda: torch.use_deterministic_algorithms(True)
    torch.use_deterministic_algorithms(False)


def check_forward(inputs, tolerance):
    """Peaks, losses and heatmaps against float64."""
    spec = inputs[5]
    features, params = inputs[:2]
    size = features.shape[2:]
    targets = random_targets(spec, len(params), size, features.device)
    expected = direct_heatmaps(*to_double(inputs)).flatten(2)
    highest, second = expected.topk(min(2, expected.shape[2]), dim=2).values[:, :, [0, -1]].unbind(2)

    peaks = peaks_of(*inputs, backend="triton")
    assert error(peaks.values, highest) <= tolerance
    scale = expected.abs().max()
    clear = highest - second > 2 * tolerance * scale
    assert clear.float().mean() > 0.3 or expected.shape[2] == 1
    assert torch.equal(peaks.indices.cpu()[clear], expected.argmax(2)[clear])
    confidence = (highest - expected.logsumexp(2)).exp()
    assert ((peaks.confidence.double().cpu() - confidence).abs() / confidence).max() <= 4 * tolerance * max(1, scale)

    heatmaps = heatmaps_of(*inputs, backend="triton")
    assert heatmaps.dtype == torch.float32
    assert error(heatmaps.flatten(2), expected) <= tolerance
    losses = cross_entropy_of(*inputs, targets, backend="triton")
    at_target = expected.gather(2, targets.cpu().clamp(min=0)[:, :, None]).squeeze(2)
    wanted = torch.where(targets.cpu() >= 0, expected.logsumexp(2) - at_target, 0.0)
    assert ((losses.double().cpu() - wanted).abs().max() <= 2 * tolerance * scale).item()
    assert not losses.cpu()[targets.cpu() < 0].any()


def check_gradients(inputs, tolerance):
    spec, size = inputs[5], inputs[0].shape[2:]
    targets = random_targets(spec, len(inputs[1]), size, inputs[0].device)
    expected = gradients(to_double(inputs), "torch", targets.cpu())
    for actual, wanted, like in zip(gradients(inputs, "triton", targets), expected, inputs[:2] * 2):
        assert actual.dtype == like.dtype
        assert norm_error(actual, wanted) <= tolerance


# --- in the interpreter ---


@needs_interpreter
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_forward_against_float64(spec, set_tf32):
    set_tf32(False)
    check_forward(to(make_inputs(spec, num_images=3, num_instances=3, size=SIZE), torch.float32), 1e-5)


@needs_interpreter
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_gradients_against_float64(spec, set_tf32):
    set_tf32(False)
    check_gradients(to(make_inputs(spec, num_images=3, num_instances=2, size=SIZE), torch.float32), 1e-5)


@needs_interpreter
@pytest.mark.parametrize("spec", [FCPOSE, SPECS[2]], ids=str)
def test_deterministic_gradients_against_float64(spec, set_tf32, deterministic):
    set_tf32(False)
    deterministic()
    check_gradients(to(make_inputs(spec, num_images=2, num_instances=3, size=SIZE), torch.float32), 1e-5)


@needs_interpreter
@pytest.mark.parametrize(
    ("dtype", "tf32", "tolerance", "gradient_tolerance"),
    [
        (torch.float32, True, 2e-3, 5e-2),
        (torch.float16, False, 2e-3, 5e-2),
        (torch.bfloat16, False, 2e-2, 0.15),
    ],
)
def test_lower_precision(dtype, tf32, tolerance, gradient_tolerance, set_tf32):
    set_tf32(tf32)
    inputs = to(make_inputs(FCPOSE, num_images=1, num_instances=3, size=SIZE), dtype)
    check_forward(inputs, tolerance)
    check_gradients(inputs, gradient_tolerance)


@needs_interpreter
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (64, 1), (8, 16)])
def test_sizes_of_the_map(size, set_tf32):
    set_tf32(False)
    inputs = to(make_inputs(INSPOSE, num_images=2, num_instances=2, size=size), torch.float32)
    check_forward(inputs, 1e-5)
    check_gradients(inputs, 1e-5)


@needs_interpreter
def test_other_memory_formats(set_tf32):
    set_tf32(False)
    features, params, *rest = to(make_inputs(INSPOSE, num_images=2, num_instances=3, size=SIZE), torch.float32)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    spread = torch.randn(3, 2 * params.shape[1] + 1)[:, 1::2].copy_(params)
    assert not spread.is_contiguous()
    check_forward((channels_last, spread, *rest), 1e-5)
    check_gradients((channels_last, spread, *rest), 1e-5)


@needs_interpreter
def test_lowest_index_of_equals():
    inputs = to(make_inputs(FCPOSE, num_images=1, num_instances=3, size=SIZE), torch.float32)
    features, params, *rest = inputs
    assert not peaks_of(features, torch.zeros_like(params), *rest, backend="triton").indices.any()
    # Two equal columns of cells: all from the 15th on repeat those from the first on, in another tile and range.
    # Small whole numbers: however a processor orders the products of a sum, equal columns give equal sums.
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(-2, 3, (1, 32, 1, 20), generator=generator).float().repeat(1, 1, 1, 10)
    params = torch.randint(-1, 2, params.shape, generator=generator).float()
    no_coords = params.view(3, -1)
    no_coords[:, : 34 * 32].view(3, 32, 34)[:, :, :2] = 0
    peaks = peaks_of(features, params, *rest, backend="triton")
    assert peaks.indices.max() < 20
    assert torch.equal(peaks.indices, peaks_of(features, params, *rest, backend="torch").indices)


@needs_interpreter
def test_large_logits_stay_finite(set_tf32):
    set_tf32(False)
    features, params, *rest = to(make_inputs(FCPOSE, num_images=1, num_instances=2, size=SIZE), torch.float32)
    inputs = (features * 1000, params, *rest)
    targets = random_targets(FCPOSE, 2, SIZE)
    peaks = peaks_of(*inputs, backend="triton")
    expected = peaks_of(*to_double(inputs), backend="torch")
    assert expected.values.abs().max() > 2000
    assert error(peaks.values, expected.values) < 1e-5
    assert torch.equal(peaks.indices, expected.indices)
    assert ((peaks.confidence > 0) & (peaks.confidence <= 1)).all()
    assert error(cross_entropy_of(*inputs, targets, backend="triton"),
                 cross_entropy_of(*to_double(inputs), targets, backend="torch")) < 1e-5  # fmt: skip
    assert all(gradient.isfinite().all() for gradient in gradients(inputs, "triton", targets))


@needs_interpreter
def test_nan_is_not_hidden():
    features, params, *rest = to(make_inputs(INSPOSE, num_images=1, num_instances=2, size=SIZE), torch.float32)
    features[0, 0, 4, 4] = float("nan")
    targets = torch.zeros(2, 17, dtype=torch.int64)
    peaks = peaks_of(features, params, *rest, backend="triton")
    assert peaks.confidence.isnan().all()
    assert ((peaks.indices >= 0) & (peaks.indices < 135)).all()
    assert cross_entropy_of(features, params, *rest, targets, backend="triton").isnan().all()
    # the bit pattern of NaN that GPUs produce, on which adding to round would carry over
    params[:] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    assert heatmaps_of(features, params, *rest, backend="triton").isnan().all()


@needs_interpreter
@pytest.mark.parametrize("num_images", [1, 3])
def test_no_instances(num_images):
    features, params, *rest = to(make_inputs(INSPOSE, num_images, num_instances=0, size=SIZE), torch.float32)
    targets = torch.zeros(0, 17, dtype=torch.int64)
    peaks = peaks_of(features, params, *rest, backend="triton")
    assert [x.shape for x in peaks] == [(0, 17)] * 3
    assert [x.dtype for x in peaks] == [torch.float32, torch.int64, torch.float32]
    for gradient, like in zip(gradients((features, params, *rest), "triton", targets), (features, params) * 2):
        assert gradient.shape == like.shape
        assert not gradient.any()


@needs_interpreter
def test_all_ignored_gives_zero_gradients():
    inputs = to(make_inputs(INSPOSE, num_images=2, num_instances=3, size=SIZE), torch.float32)
    targets = torch.full((3, 17), -1)
    leaves = (inputs[0].requires_grad_(), inputs[1].requires_grad_())
    losses = cross_entropy_of(*leaves, *inputs[2:], targets, backend="triton")
    assert not losses.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(losses.sum(), leaves))


@needs_interpreter
@pytest.mark.parametrize("wanted", ["features", "params"])
def test_gradient_of_one_argument(wanted, set_tf32):
    set_tf32(False)
    features, params, *rest = to(make_inputs(INSPOSE, num_images=2, num_instances=3, size=SIZE), torch.float32)
    leaf = {"features": features, "params": params}[wanted].requires_grad_()
    targets = random_targets(INSPOSE, 3, SIZE)
    (alone,) = torch.autograd.grad(cross_entropy_of(features, params, *rest, targets, backend="triton").sum(), leaf)
    (expected,) = torch.autograd.grad(
        cross_entropy_of(features, params, *rest, targets, backend="torch").sum(), leaf
    )  # fmt: skip
    assert norm_error(alone, expected.double()) < 1e-5


@needs_interpreter
def test_everything_is_written(monkeypatch, set_tf32):
    """What torch.empty gives is full of NaN; whatever is not written shows."""
    set_tf32(False)
    empty = torch.empty

    def poisoned(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -(2**31))

    monkeypatch.setattr(torch, "empty", poisoned)
    # more ranges than tiles of 64 cells: one range is empty
    monkeypatch.setattr(fused, "_BLOCKS_PER_MULTIPROCESSOR", 100)
    inputs = to(make_inputs(SPECS[2], num_images=2, num_instances=2, size=(5, 30)), torch.float32)
    check_forward(inputs, 1e-5)
    check_gradients(inputs, 1e-5)


@needs_interpreter
@pytest.mark.parametrize("mode", ["atomic", "deterministic"])
def test_repeats_exactly_in_the_interpreter(mode, deterministic):
    if mode == "deterministic":
        deterministic()
    inputs = to(make_inputs(INSPOSE, num_images=2, num_instances=3, size=(5, 9)), torch.float32)
    targets = random_targets(INSPOSE, 3, (5, 9))
    first, second = (gradients(inputs, "triton", targets) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@needs_interpreter
def test_without_the_matrix_units_where_memory_is_small(monkeypatch, caplog, set_tf32):
    set_tf32(True)
    launched = []

    class Kernel:
        """A GPU on which only products without the matrix units fit."""

        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launch(*arguments, **meta):
                launched.append(meta["PRECISION"])
                if meta["PRECISION"] != "ieee":
                    raise fused.OutOfResources(232448, 101376, "shared memory")
                self.kernel[grid](*arguments, **meta)

            return launch

    inputs = to(make_inputs(INSPOSE, num_images=1, num_instances=2, size=SIZE), torch.float32)
    for name in ("forward_kernel", "backward_kernel"):
        monkeypatch.setattr(fused.kernels, name, Kernel(getattr(fused.kernels, name)))
    fused._warn_of_small_memory.cache_clear()
    with caplog.at_level(logging.WARNING):
        check_gradients(inputs, 1e-3)  # the features have been rounded to TF32
    assert launched == ["tf32", "ieee"] * 4
    assert [record.message for record in caplog.records] == [
        "A KP-Net kernel runs more slowly, without the matrix units: out of resource: shared memory, "
        "Required: 232448, Hardware limit: 101376. Reducing block sizes or `num_stages` may help."
    ]


# --- as operators of torch ---


@needs_interpreter
@pytest.mark.parametrize("num_instances", [0, 2])
def test_opcheck(num_instances):
    features, params, *rest, spec, stride = to(
        make_inputs(INSPOSE, num_images=2, num_instances=num_instances, size=(3, 5)), torch.float32
    )
    arguments = (features.requires_grad_(), params.requires_grad_(), *rest)
    packed = fused._pack(spec)
    targets = random_targets(spec, num_instances, (3, 5))
    opcheck(torch.ops.dynpose.kp_net_cross_entropy.default, (*arguments, targets, packed, stride))
    opcheck(torch.ops.dynpose.kp_net_heatmaps.default, (*arguments, packed, stride))
    detached = (features.detach(), params.detach(), *rest)
    opcheck(torch.ops.dynpose.kp_net_peaks.default, (*detached, packed, stride))
    sums = torch.randn(num_instances, 17)
    for wanted in ((True, True), (True, False), (False, True)):
        backward = (torch.ones(num_instances, 17), *detached, targets, sums, packed, stride, *wanted)
        opcheck(torch.ops.dynpose.kp_net_backward.default, backward)


@needs_interpreter
def test_compile_does_not_break_the_graph(set_tf32):
    set_tf32(False)
    inputs = to(make_inputs(INSPOSE, num_images=2, num_instances=2, size=(3, 5)), torch.float32)
    check_one_graph(inputs, random_targets(INSPOSE, 2, (3, 5)), "triton")


@needs_interpreter
def test_autocast_changes_nothing():
    inputs = to(make_inputs(INSPOSE, num_images=2, num_instances=2, size=(3, 5)), torch.float32)
    targets = random_targets(INSPOSE, 2, (3, 5))
    without = gradients(inputs, "triton", targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = gradients(inputs, "triton", targets)
    assert all(torch.equal(a, b) for a, b in zip(under_autocast, without))


@needs_interpreter
def test_params_of_another_dtype():
    features, params, *rest = to(make_inputs(INSPOSE, num_images=2, num_instances=2, size=(3, 5)), torch.float32)
    half = params.half().requires_grad_()
    losses = cross_entropy_of(features, half, *rest, random_targets(INSPOSE, 2, (3, 5)), backend="triton")
    (gradient,) = torch.autograd.grad(losses.sum(), half)
    assert losses.dtype == torch.float32
    assert gradient.dtype == torch.float16
    assert gradient.any()


# --- which backend runs ---


def test_auto_is_plain_pytorch_on_the_cpu():
    nets = KPNets(*make_inputs(INSPOSE))
    for device in (torch.device("cpu"), torch.device("meta")):  # any other device without kernels
        selected = backends.select_backend("kp_net_heatmaps", "auto", device, nets)
        assert selected is reference._kp_net_heatmaps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.float64}, "there is no kernel for torch.float64"),
        ({"spec": KPNetSpec(65, 8, 2, 3)}, "at most 64 channels"),
        ({"spec": KPNetSpec(8, 65, 2, 3)}, "at most 64 channels"),
        ({"spec": KPNetSpec(8, 8, 5, 3)}, "at most 4 layers"),
        ({"triton": None, "_TRITON_MISSING_REASON": "Triton is not installed"}, "Triton is not installed"),
        ({"_INTERPRETS": False}, "there is no kernel for cpu"),
    ],
    ids=str,
)
def test_falls_back_with_one_warning(change, message, monkeypatch, caplog):
    for name in ("triton", "_TRITON_MISSING_REASON", "_INTERPRETS"):
        if name in change:
            monkeypatch.setattr(triton_support, name, change[name])
    inputs = make_inputs(change.get("spec", INSPOSE), dtype=change.get("features", torch.float32))
    backends._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        results = [heatmaps_of(*inputs, backend="triton") for _ in range(2)]
    assert torch.equal(results[0], reference._kp_net_heatmaps(KPNets(*inputs)))
    assert torch.equal(*results)
    (record,) = caplog.records
    assert record.message.startswith("kp_net_heatmaps does not run on backend 'triton': ")
    assert message in record.message


def test_old_triton_is_not_used(monkeypatch):
    monkeypatch.setattr("triton.__version__", "3.1.0")
    found, reason = triton_support._import_triton()
    assert found is None
    assert reason == "Triton 3.1.0 is installed, but the kernels need 3.4"


def test_old_gpus_fall_back(monkeypatch):
    monkeypatch.setattr(triton_support, "_INTERPRETS", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    reason = triton_support._unavailable_reason(torch.float32, torch.device("cuda", 0))
    assert reason == "the GPU's compute capability is 7.5, but the kernels need 8.0"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert triton_support._unavailable_reason(torch.float32, torch.device("cuda", 0)) is None


def test_depth_one_may_name_any_width():
    assert fused.unavailable_reason(torch.zeros(1, 8, 2, 2), KPNetSpec(8, 500, 1, 3)) is None
    assert fused.unavailable_reason(torch.zeros(1, 64, 2, 2), WIDEST) is None


def test_larger_maps_than_a_row_can_be_found_in():
    features = torch.zeros(1, 8, 1, 1)
    assert fused.unavailable_reason(features.expand(1, 8, 2048, 1024), INSPOSE) is None
    reason = fused.unavailable_reason(features.expand(1, 8, 2048, 1025), INSPOSE)
    assert reason == "the kernels support maps of at most 2097152 cells"


@pytest.mark.parametrize("width", [1, 2, 3, 7, 127, 128, 168, 333, 1447, 1448, 65537, fused.MAX_CELLS])
def test_a_row_by_a_product_in_float32(width):
    """As the kernels find it, for every cell of the largest maps."""
    cells = np.arange(fused.MAX_CELLS)
    rows_of_a_cell = np.float32(1) / np.float32(width)
    rows = ((cells.astype(np.float32) + np.float32(0.5)) * rows_of_a_cell).astype(np.int64)
    assert (rows == cells // width).all()


@pytest.mark.parametrize(
    ("dtype", "tf32", "precision"),
    [
        (torch.float32, False, "tf32x3"),
        (torch.float32, True, "tf32"),
        (torch.float16, False, "tf32"),
        (torch.bfloat16, True, "bf16"),
    ],
)
def test_dot_precision(dtype, tf32, precision, set_tf32):
    set_tf32(tf32)
    assert triton_support.dot_precision(dtype) == precision


# --- compiled, without a GPU ---


def compiled(kernel, spec, features, precision, mode, config, **choices):
    """What compile_report takes for one of the kernels, for a spec as _Launch reads it.

    ``config`` is one of those that are tuned, or a dict of those that are not.
    """
    options = dict(config) if isinstance(config, dict) else config.all_kwargs()
    block = options.pop("BLOCK")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[features]
    inputs = to(make_inputs(spec, 1, 1, (1, 1)), dtype)
    launch = fused._Launch(*inputs[:5], fused._pack(spec), 8)
    pointers = {
        "features": f"*{features}",
        **dict.fromkeys(("image_index", "targets", "order", "starts", "indices"), "*i64"),
        "part_cell": "*i32",
    }
    names = fused.kernels.__dict__[kernel].arg_names
    signature = {name: "i32" if name in fused.kernels._SIZES else pointers.get(name, "*fp32") for name in names}
    unused = {"peaks": ("targets", "part_target", "heatmaps"), "heatmaps": ("targets", "log_sums")}.get(mode, ())
    if kernel == "forward_kernel" and mode == "cross_entropy":
        unused = ("part_cell", "heatmaps")
    constants = {**launch.meta, "PRECISION": precision, "MODE": mode, "BLOCK": block, **choices}
    return {
        "kernel": f"dynpose.layers.kp_net.kernels:{kernel}",
        "signature": signature,
        "constants": {**constants, **dict.fromkeys(unused)},
        "options": options,
    }


GRADIENTS = {"WITH_FEATURES": True, "WITH_PARAMS": True, "ATOMIC": True}


def test_kernels_compile_for_gpus():
    plain_forward, *_, small_forward = fused._FORWARD
    fixed, fixed_backward = fused._fixed({"C_PAD": 32, "WIDTH_PAD": 32}), fused._FIXED_BACKWARD
    parts = {**GRADIENTS, "ATOMIC": False}
    kernels = [
        compiled("round_kernel", FCPOSE, "fp32", "tf32", "peaks", fused._ROUND, CHANNELS_LAST=False),
        compiled("forward_kernel", FCPOSE, "fp32", "tf32", "peaks", plain_forward),
        compiled("forward_kernel", FCPOSE, "fp32", "tf32x3", "cross_entropy", fixed),
        compiled("forward_kernel", INSPOSE, "bf16", "bf16", "peaks", small_forward),
        compiled("feature_gradient_kernel", FCPOSE, "fp32", "tf32", "cross_entropy", fixed),
        compiled("backward_kernel", FCPOSE, "fp32", "tf32", "cross_entropy", fused._BACKWARD[1], **GRADIENTS),
        compiled("backward_kernel", FCPOSE, "fp16", "tf32", "heatmaps", fixed_backward, **parts),
    ]
    for report in compile_report(kernels):
        # Three products for one hold the weights twice.
        spills = 2048 if (report["kernel"], report["architecture"]) == ("forward_kernel", 80) else 64
        assert report["spill_bytes"] <= spills, report
        # what every GPU of compute capability 8.0 or more has
        assert report["shared_bytes"] <= 99 * 1024, report
        assert set(report["specialised"]) <= {
            "features", "grad_features", "grad_params", "part_max", "part_sum", "part_cell", "part_target", "heatmaps"
        }, report  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "architecture", "instructions"),
    [("peaks", 80, 520), ("peaks", 90, 390), ("cross_entropy", 80, 510), ("cross_entropy", 90, 400)],
)
def test_cost_of_a_tile_of_the_forward_pass(mode, architecture, instructions):
    """The loop over the tiles is short, and no number changes threads in it."""
    kernel = compiled("forward_kernel", FCPOSE, "fp32", "tf32", mode, fused._FORWARD[0])
    (report,) = compile_report([kernel], architectures=(architecture,))
    assert 200 < sum(report["loop"].values()) <= instructions, report
    assert report["loop"].get("SHFL", 0) == 0, report


def test_the_widest_kp_net_fits_without_the_matrix_units():
    kernels = [
        compiled("forward_kernel", WIDEST, "fp32", "ieee", "peaks", fused._FIXED_BACKWARD),
        compiled("feature_gradient_kernel", WIDEST, "fp32", "ieee", "cross_entropy", fused._FIXED_BACKWARD),
    ]
    for report in compile_report(kernels, architectures=(80,)):
        assert report["shared_bytes"] <= 99 * 1024, report


# --- on a GPU ---


@pytest.mark.gpu
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("spec", [*SPECS, WIDEST], ids=str)
@pytest.mark.parametrize(("num_images", "size"), [(1, (25, 41)), (3, (100, 167))])
def test_cuda_against_float64(spec, num_images, size, seed, set_tf32):
    set_tf32(False)
    inputs = to(make_inputs(spec, num_images, num_instances=9, size=size, seed=seed), torch.float32, "cuda")
    check_forward(inputs, 1e-5)
    check_gradients(inputs, 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("spec", [FCPOSE, INSPOSE, WIDEST], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tf32", "tolerance", "gradient_tolerance"),
    [(torch.float32, True, 2e-3, 5e-2), (torch.float16, False, 2e-3, 5e-2), (torch.bfloat16, False, 2e-2, 0.15)],
)
def test_cuda_lower_precision(spec, dtype, tf32, tolerance, gradient_tolerance, set_tf32):
    set_tf32(tf32)
    inputs = to(make_inputs(spec, num_images=2, num_instances=9, size=(50, 84)), dtype, "cuda")
    check_forward(inputs, tolerance)
    check_gradients(inputs, gradient_tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("num_instances", [1, 100, 2000])
def test_cuda_repeats(num_instances, deterministic):
    """A difference between runs is a race, but for the order of atomic additions."""
    inputs = to(make_inputs(FCPOSE, 2, num_instances, size=(100, 167)), torch.float32, "cuda")
    peaks = [peaks_of(*inputs, backend="triton") for _ in range(10)]
    assert all(torch.equal(a, b) for again in peaks for a, b in zip(again, peaks[0]))
    targets = random_targets(FCPOSE, num_instances, (100, 167), "cuda")
    leaves = (inputs[0].requires_grad_(), inputs[1].requires_grad_())

    def run():
        return torch.autograd.grad(cross_entropy_of(*leaves, *inputs[2:], targets, backend="triton").sum(), leaves)

    atomic = run()
    deterministic()
    repeats = [run() for _ in range(5)]
    assert all(torch.equal(a, b) for again in repeats for a, b in zip(again, repeats[0]))
    for a, b in zip(atomic, repeats[0]):
        assert norm_error(a, b.double().cpu()) < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True])
def test_cuda_memory(training):
    num_instances, size = 500, (100, 167)
    inputs = to(make_inputs(FCPOSE, 1, num_instances, size=size), torch.float32, "cuda")
    targets = random_targets(FCPOSE, num_instances, size, "cuda")
    leaves = (inputs[0].requires_grad_(), inputs[1].requires_grad_())

    def run():
        if not training:
            return peaks_of(*inputs, backend="triton")
        return torch.autograd.grad(cross_entropy_of(*leaves, *inputs[2:], targets, backend="triton").sum(), leaves)

    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    held = torch.cuda.max_memory_allocated() - before
    # the grouped convolution holds two maps of 32 channels at once, in training all of them
    grouped = num_instances * size[0] * size[1] * 4 * (32 + 32 + 17 if training else 64)
    assert held <= grouped / (30 if training else 100)


@pytest.mark.gpu
def test_cuda_does_not_wait_for_the_device():
    inputs = to(make_inputs(FCPOSE, num_images=3, num_instances=20, size=(25, 41)), torch.float32, "cuda")
    targets = random_targets(FCPOSE, 20, (25, 41), "cuda")
    gradients(inputs, "triton", targets)
    peaks_of(*inputs, backend="triton")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        peaks_of(*inputs)
        leaves = (inputs[0].requires_grad_(), inputs[1].requires_grad_())
        torch.autograd.grad(cross_entropy_of(*leaves, *inputs[2:], targets).sum(), leaves)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
def test_cuda_auto_is_fused(monkeypatch):
    inputs = to(make_inputs(FCPOSE, num_images=1, num_instances=2, size=(5, 9)), torch.float32, "cuda")
    nets = KPNets(*inputs)
    assert backends.select_backend("kp_net_peaks", "auto", inputs[0].device, nets) is fused.fused_kp_net_peaks
