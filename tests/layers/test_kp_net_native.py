"""The compiled code of the KP-Net operator, against float64 and against the reference, and what happens without it."""

import logging

import pytest
import torch
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

from dynpose.layers import KPNets, KPNetSpec, backends
from dynpose.layers.kp_net import native, operator, reference

INSPOSE = KPNetSpec(in_channels=8, width=8, depth=3, num_keypoints=17)
SPECS = [
    FCPOSE,
    INSPOSE,
    KPNetSpec(16, 99, 1, 33, coords_position="last"),
    KPNetSpec(9, 24, 2, 1, coords_sign=1),
    KPNetSpec(20, 16, 4, 40, coords_position="last", coords_sign=1),
    KPNetSpec(1, 1, 2, 1),
    KPNetSpec(3, 70, 3, 5),
]
# Several ranges of cells, the last of which is not full
SIZE = (31, 41)

built = pytest.mark.skipif(not native.is_built(), reason="the operator was not compiled when dynpose was installed")


@pytest.fixture(params=native._variants())
def variant(request, monkeypatch):
    """Each variant of the compiled code that this processor runs."""
    library = native._load(request.param)
    if library is None:
        pytest.skip(f"{request.param} was not compiled")
    monkeypatch.setattr(native, "_library", lambda: library)


def single(inputs):
    """The same numbers in float32."""
    return tuple(x.float() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs)


def assert_close(actual, expected, tolerance=1e-5):
    """Compare relative to the largest value."""
    assert actual.shape == expected.shape
    assert (actual.double() - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("size", [SIZE, (5, 9), (1, 1)])
def test_against_float64(spec, size, variant):
    inputs = single(make_inputs(spec, num_images=3, num_instances=5, size=size))
    double = tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs)
    expected = direct_heatmaps(*double)
    assert_close(heatmaps_of(*inputs, backend="native"), expected)

    flat = expected.flatten(2)
    peaks = peaks_of(*inputs, backend="native")
    assert_close(peaks.values, flat.amax(2))
    assert_close(flat.gather(2, peaks.indices[..., None]).squeeze(2), flat.amax(2))
    assert_close(peaks.confidence, flat.softmax(2).amax(2))

    targets = random_targets(spec, 5, size)
    losses = cross_entropy_of(*inputs, targets, backend="native")
    assert_close(losses, cross_entropy_of(*double, targets, backend="torch"))
    assert not losses[targets < 0].any()
    for actual, wanted in zip(gradients(inputs, "native", targets), gradients(double, "torch", targets)):
        assert_close(actual, wanted, 2e-5)


@built
def test_more_instances_than_a_chunk_of_gradients():
    inputs = make_inputs(INSPOSE, num_images=3, num_instances=70, size=(7, 9))
    targets = random_targets(INSPOSE, 70, (7, 9))
    for actual, wanted in zip(gradients(single(inputs), "native", targets), gradients(inputs, "torch", targets)):
        assert_close(actual, wanted)


@built
@pytest.mark.parametrize("wanted", ["features", "params"])
def test_gradient_of_one_argument(wanted):
    features, params, *rest = single(make_inputs(INSPOSE))
    leaf = {"features": features, "params": params}[wanted].requires_grad_()
    targets = random_targets(INSPOSE, 7, (5, 9))
    alone, expected = (
        torch.autograd.grad(cross_entropy_of(features, params, *rest, targets, backend=backend).sum(), leaf)[0]
        for backend in ("native", "torch")
    )
    assert_close(alone, expected.double())


@built
def test_the_number_of_threads_does_not_change_a_bit():
    inputs = single(make_inputs(INSPOSE, num_images=2, num_instances=40, size=SIZE))
    targets = random_targets(INSPOSE, 40, SIZE)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            peaks = peaks_of(*inputs, backend="native")
            losses = cross_entropy_of(*inputs, targets, backend="native")
            results.append((*peaks, losses, *gradients(inputs, "native", targets)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


def test_lowest_index_of_equals(variant):
    features, params, *rest = single(make_inputs(FCPOSE, num_images=1, num_instances=3, size=(20, 50)))
    peaks = peaks_of(features, torch.zeros_like(params), *rest, backend="native")
    assert not peaks.indices.any()
    torch.testing.assert_close(peaks.confidence, torch.full_like(peaks.confidence, 1e-3))
    # Every cell occurs 50 times, in other tiles and ranges too. Small whole numbers: their sums are exact.
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(-2, 3, (1, 32, 1, 20), generator=generator).float().repeat(1, 1, 1, 50)
    params = torch.randint(-1, 2, params.shape, generator=generator).float()
    params[:, : 34 * 32].view(3, 32, 34)[:, :, :2] = 0
    peaks, expected = (peaks_of(features, params, *rest, backend=backend) for backend in ("native", "torch"))
    assert peaks.indices.max() < 20
    assert torch.equal(peaks.indices, expected.indices)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("everywhere", [False, True])
def test_nan_and_infinity_as_the_reference(value, everywhere, variant):
    # a heatmap is the feature itself, or its negative
    spec = KPNetSpec(in_channels=1, width=1, depth=1, num_keypoints=2)
    features = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    features.flatten()[slice(None) if everywhere else [700, 900]] = value
    # one row of weights (x, y, feature) for each keypoint, then the biases
    params = torch.tensor([[0, 0, 1.0, 0, 0, -1.0, 0, 0]])
    inputs = (features, params, torch.tensor([0]), torch.ones(1, 2), torch.ones(1), spec, 8)
    actual, expected = (peaks_of(*inputs, backend=backend) for backend in ("native", "torch"))
    torch.testing.assert_close(tuple(actual), tuple(expected), equal_nan=True)
    targets = torch.tensor([[3, 700]])
    losses, expected_losses = (cross_entropy_of(*inputs, targets, backend=name) for name in ("native", "torch"))
    torch.testing.assert_close(losses, expected_losses, equal_nan=True)


@built
def test_nan_of_any_bits_passes_hidden_layers():
    features, params, *rest = single(make_inputs(INSPOSE, size=SIZE))
    params[0] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    peaks = peaks_of(features, params, *rest, backend="native")
    assert peaks.confidence.isnan().all(1).tolist() == [True, *[False] * 6]
    assert not peaks.indices[0].any()
    targets = torch.zeros(7, 17, dtype=torch.int64)
    assert cross_entropy_of(features, params, *rest, targets, backend="native").isnan().all(1).sum() == 1


@built
def test_large_logits_stay_finite():
    features, params, *rest = make_inputs(FCPOSE, size=SIZE)
    inputs = (features * 1000, params, *rest)
    targets = random_targets(FCPOSE, 7, SIZE)
    expected = peaks_of(*inputs)
    assert expected.values.abs().max() > 2000
    peaks = peaks_of(*single(inputs), backend="native")
    assert_close(peaks.values, expected.values)
    assert torch.equal(peaks.indices, expected.indices)
    assert ((peaks.confidence > 0) & (peaks.confidence <= 1)).all()
    assert all(gradient.isfinite().all() for gradient in gradients(single(inputs), "native", targets))


@built
def test_no_instances_and_all_ignored():
    features, params, *rest = single(make_inputs(INSPOSE, num_instances=0))
    targets = torch.zeros(0, 17, dtype=torch.int64)
    peaks = peaks_of(features, params, *rest, backend="native")
    assert [x.shape for x in peaks] == [(0, 17)] * 3
    assert [x.dtype for x in peaks] == [torch.float32, torch.int64, torch.float32]
    assert not any(gradient.any() for gradient in gradients((features, params, *rest), "native", targets))

    features, params, *rest = single(make_inputs(INSPOSE))
    leaves = (features.requires_grad_(), params.requires_grad_())
    losses = cross_entropy_of(*leaves, *rest, torch.full((7, 17), -1), backend="native")
    assert not losses.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(losses.sum(), leaves))


@built
def test_other_memory_formats_and_dtypes():
    features, params, *rest = single(make_inputs(INSPOSE))
    expected = peaks_of(features, params, *rest, backend="native").values
    spread = torch.zeros(7, 2 * params.shape[1])[:, ::2].copy_(params)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(peaks_of(channels_last, spread, *rest, backend="native").values, expected)
    for dtype in (torch.bfloat16, torch.float16):
        low = features.to(dtype).requires_grad_()
        heatmaps = heatmaps_of(low, params, *rest, backend="native")
        assert torch.equal(heatmaps, heatmaps_of(low.float(), params, *rest, backend="native"))
        (gradient,) = torch.autograd.grad(heatmaps.square().mean(), low)
        assert gradient.dtype == dtype
        assert gradient.any()


# --- as operators of torch ---


@built
@pytest.mark.parametrize("num_instances", [0, 2])
def test_opcheck(num_instances):
    inputs = single(make_inputs(INSPOSE, num_instances=num_instances, size=(3, 5)))
    features, weights, image_index, sizes = native._arguments(KPNets(*inputs))
    targets = random_targets(INSPOSE, num_instances, (3, 5))
    arguments = (features.requires_grad_(), weights.requires_grad_(), image_index, sizes)
    opcheck(torch.ops.dynpose.native_kp_net_cross_entropy.default, (*arguments, targets))
    opcheck(torch.ops.dynpose.native_kp_net_heatmaps.default, arguments)
    detached = (features.detach(), weights.detach(), image_index, sizes)
    opcheck(torch.ops.dynpose.native_kp_net_peaks.default, detached)
    grad, log_sums = torch.ones(num_instances, 17), torch.randn(num_instances, 17)
    for wanted in ((True, True), (True, False), (False, True)):
        opcheck(torch.ops.dynpose.native_kp_net_backward.default, (grad, *detached, targets, log_sums, *wanted))


@built
def test_compile_does_not_break_the_graph():
    check_one_graph(single(make_inputs(INSPOSE, size=(3, 5))), random_targets(INSPOSE, 7, (3, 5)))


# --- which backend runs ---


@built
def test_auto_is_native_on_the_cpu_in_float32():
    nets = KPNets(*single(make_inputs(INSPOSE)))
    selected = backends.select_backend("kp_net_peaks", "auto", torch.device("cpu"), nets)
    assert selected is native.native_kp_net_peaks
    double = KPNets(*make_inputs(INSPOSE))
    assert native.unavailable_reason(double.features, double.params) == "there is no kernel for torch.float64"


@pytest.mark.parametrize("found", [None, "corrupt"])
def test_without_the_compiled_code(found, monkeypatch, caplog, tmp_path):
    """As after an installation without a compiler, or with a file for another system."""
    broken = tmp_path / "_native.so"
    broken.write_text("not a library")
    spec = None if found is None else type("Spec", (), {"origin": str(broken)})
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: spec)
    with caplog.at_level(logging.WARNING):
        library = native._library.__wrapped__()
    assert library is None
    assert ("cannot be loaded" in caplog.text) == (found is not None)

    monkeypatch.setattr(native, "_library", lambda: None)
    monkeypatch.setattr(backends, "_IMPLEMENTATIONS", {})
    operator._register()
    backends._warn.cache_clear()
    caplog.clear()
    inputs = single(make_inputs(INSPOSE))
    with caplog.at_level(logging.WARNING):
        heatmaps = heatmaps_of(*inputs)
        assert not caplog.records
        assert torch.equal(heatmaps, heatmaps_of(*inputs, backend="native"))
    assert torch.equal(heatmaps, reference._kp_net_heatmaps(KPNets(*inputs)))
    assert caplog.messages == [
        "kp_net_heatmaps does not run on backend 'native': it was not compiled when dynpose was installed"
    ]
