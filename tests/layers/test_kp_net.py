import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dynpose.layers import KPNets, KPNetSpec, kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from dynpose.layers.kp_net import reference

STRIDE = 8
FCPOSE = KPNetSpec(in_channels=32, width=32, depth=3, num_keypoints=17)


def make_inputs(spec, num_images=2, num_instances=7, size=(5, 9), dtype=torch.float64, seed=0):
    """The arguments of KPNets, random."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    height, width = size
    image_index = torch.randint(num_images, (num_instances,), generator=generator)
    extent = torch.tensor([width, height], dtype=dtype) * STRIDE
    locations = torch.rand(num_instances, 2, generator=generator, dtype=dtype) * extent
    coord_scale = torch.rand(num_instances, generator=generator, dtype=dtype) * 64 + 32
    features = randn(num_images, spec.in_channels, height, width)
    return features, randn(num_instances, spec.num_params) * 0.3, image_index, locations, coord_scale, spec, STRIDE


def heatmaps_of(*inputs, backend="auto"):
    return kp_net_heatmaps(KPNets(*inputs, backend=backend))


def peaks_of(*inputs, backend="auto"):
    return kp_net_peaks(KPNets(*inputs, backend=backend))


def cross_entropy_of(*inputs, backend="auto"):
    *inputs, targets = inputs
    return kp_net_cross_entropy(KPNets(*inputs, backend=backend), targets)


def direct_heatmaps(features, params, image_index, locations, coord_scale, spec, stride):
    """The definition: one person at a time, the coordinates as two channels, every layer as F.conv2d."""
    _, _, height, width = features.shape
    heatmaps = [params.new_zeros(0, spec.num_keypoints, height, width)]
    for image, vector, (x, y), scale in zip(image_index, params, locations, coord_scale):
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([u * stride + stride // 2, v * stride + stride // 2]).to(features.dtype)
        relative = spec.coords_sign * (cells - torch.stack([x, y])[:, None, None]) / scale
        order = [relative, features[image]] if spec.coords_position == "first" else [features[image], relative]
        maps, read = torch.cat(order)[None], 0
        for layer in range(spec.depth):
            out = spec.num_keypoints if layer == spec.depth - 1 else spec.width
            weight = vector[read : read + out * maps.shape[1]].view(out, maps.shape[1], 1, 1)
            read += weight.numel()
            maps = F.conv2d(maps if layer == 0 else maps.relu(), weight, vector[read : read + out])
            read += out
        assert read == len(vector)
        heatmaps.append(maps)
    return torch.cat(heatmaps)


def random_targets(spec, num_instances, size, device="cpu", seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, size[0] * size[1], (num_instances, spec.num_keypoints), generator=generator).to(device)


def gradients(inputs, backend, targets, seed=2):
    """Of a weighted sum of the losses and of one of the heatmaps, by features and parameters."""
    features, params, *rest = inputs
    leaves = (features.detach().requires_grad_(), params.detach().requires_grad_())
    losses = cross_entropy_of(*leaves, *rest, targets, backend=backend)
    heatmaps = heatmaps_of(*leaves, *rest, backend=backend)
    generator = torch.Generator().manual_seed(seed)
    results = []
    for output in (losses, heatmaps):
        weight = torch.randn(output.shape, generator=generator).to(output)
        results += torch.autograd.grad((output * weight).sum(), leaves)
    return results


def check_one_graph(inputs, targets, backend="auto"):
    """A function of the whole operator compiles without a break, with the same results and gradients."""
    features, params, *rest = inputs

    def run(features, params):
        losses = cross_entropy_of(features * 2, params, *rest, targets, backend=backend)
        heatmaps = heatmaps_of(features, params, *rest, backend=backend)
        peaks = peaks_of(features, params, *rest, backend=backend)
        return losses.sum() + heatmaps.square().mean() + peaks.confidence.sum(), peaks.indices

    results = []
    for function in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        leaves = (features.clone().requires_grad_(), params.clone().requires_grad_())
        value, indices = function(*leaves)
        results.append((value, indices, *torch.autograd.grad(value, leaves)))
    for eager, compiled in zip(*results):
        torch.testing.assert_close(compiled, eager)


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


SPECS = [
    KPNetSpec(3, 4, depth, 5, coords_position=position, coords_sign=sign)
    for depth, position, sign in itertools.product((1, 2, 3, 4), ("first", "last"), (1, -1))
] + [KPNetSpec(1, 1, 2, 1), KPNetSpec(8, 8, 3, 17), KPNetSpec(5, 7, 3, 13, coords_position="last")]


# --- the spec ---


def test_num_params_of_the_papers():
    # (34 * 32 + 32) + (32 * 32 + 32) + (32 * 17 + 17) = 1120 + 1056 + 561
    assert FCPOSE.num_params == 2737
    assert FCPOSE.layer_sizes == ((34, 32), (32, 32), (32, 17))
    # (10 * 8 + 8) + (8 * 8 + 8) + (8 * 17 + 17) = 88 + 72 + 153
    inspose = KPNetSpec(in_channels=8, width=8, depth=3, num_keypoints=17)
    assert inspose.num_params == 313
    assert inspose.param_sizes == (80, 8, 64, 8, 136, 17)


def test_depth_one_maps_inputs_to_keypoints():
    spec = KPNetSpec(in_channels=3, width=99, depth=1, num_keypoints=4)
    assert spec.layer_sizes == ((5, 4),)
    assert spec.num_params == 24


def test_unpack():
    spec = KPNetSpec(in_channels=1, width=2, depth=2, num_keypoints=1)
    (weight0, bias0), (weight1, bias1) = spec.unpack(torch.arange(22).view(2, 11))
    assert weight0.tolist() == [[[0, 1, 2], [3, 4, 5]], [[11, 12, 13], [14, 15, 16]]]
    assert bias0.tolist() == [[6, 7], [17, 18]]
    assert weight1.tolist() == [[[8, 9]], [[19, 20]]]
    assert bias1.tolist() == [[10], [21]]
    with pytest.raises(ValueError, match=r"params: expected shape \(N, 11\), got \(2, 12\)"):
        spec.unpack(torch.zeros(2, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth: expected at least 1, got 0"),
        ({"num_keypoints": 0}, "num_keypoints"),
        ({"coords_position": "middle"}, "coords_position: expected 'first' or 'last', got 'middle'"),
        ({"coords_sign": 0}, "coords_sign: expected 1 or -1, got 0"),
    ],
)
def test_spec_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        KPNetSpec(**{"in_channels": 2, "width": 2, "depth": 2, "num_keypoints": 2, **change})


# --- what is computed ---


def test_heatmap_by_hand():
    # One row of two cells at stride 5: centres (2, 2) and (7, 2). The location is (3, 4) and the scale 2, so that the
    # offsets are (-0.5, -1) and (2, -1) for sign +1.
    features = torch.tensor([[[[7.0, 9.0]]]])
    image_index, location, scale = torch.tensor([0]), torch.tensor([[3.0, 4.0]]), torch.tensor([2.0])

    def run(params, **choices):
        spec = KPNetSpec(in_channels=1, width=1, num_keypoints=1, **choices)
        return heatmaps_of(features, torch.tensor([params]), image_index, location, scale, spec, 5).flatten()

    one_layer = [10.0, 100.0, 1000.0, 0.25]
    # -5 - 100 + 7000 + 0.25 and 20 - 100 + 9000 + 0.25
    assert run(one_layer, depth=1, coords_position="first", coords_sign=1).tolist() == [6895.25, 8920.25]
    assert run(one_layer, depth=1, coords_position="first", coords_sign=-1).tolist() == [7105.25, 9080.25]
    # 10 * 7 - 100 * 0.5 - 1000 + 0.25 and 10 * 9 + 100 * 2 - 1000 + 0.25
    assert run(one_layer, depth=1, coords_position="last", coords_sign=1).tolist() == [-979.75, -709.75]
    # hidden: relu(x offset + 0.5 y offset + 0.5) = relu(-0.5), relu(2); then 3 h - 1
    assert run([1.0, 0.5, 0.0, 0.5, 3.0, -1.0], depth=2, coords_sign=1).tolist() == [-1.0, 5.0]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize(("num_images", "num_instances", "size"), [(1, 1, (3, 5)), (2, 7, (5, 9)), (3, 7, (1, 1))])
def test_against_the_definition(spec, num_images, num_instances, size):
    inputs = make_inputs(spec, num_images, num_instances, size)
    expected = direct_heatmaps(*inputs)
    flat = expected.flatten(2)

    heatmaps = heatmaps_of(*inputs)
    torch.testing.assert_close(heatmaps, expected, rtol=1e-11, atol=1e-11)

    peaks = peaks_of(*inputs)
    torch.testing.assert_close(peaks.values, flat.amax(2), rtol=1e-11, atol=1e-11)
    # ReLU leaves some maps constant: between their cells rounding decides, which differs from processor to processor
    found = flat.gather(2, peaks.indices[..., None])[..., 0]
    torch.testing.assert_close(found, flat.amax(2), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(peaks.confidence, flat.softmax(2).amax(2), rtol=1e-10, atol=1e-11)

    targets = torch.randint(-1, flat.shape[2], flat.shape[:2], generator=torch.Generator().manual_seed(1))
    losses = cross_entropy_of(*inputs, targets)
    expected_losses = F.cross_entropy(flat.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none").view_as(
        targets
    )
    torch.testing.assert_close(losses, expected_losses, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("max_elements", [1, 500, None])
def test_gradients_against_the_definition(max_elements):
    spec = SPECS[8]
    features, params, *rest = make_inputs(spec, num_images=3)
    targets = torch.randint(-2, 45, (7, 5), generator=torch.Generator().manual_seed(1))

    def gradients(loss):
        leaves = [features.clone().requires_grad_(), params.clone().requires_grad_()]
        return torch.autograd.grad(loss(*leaves, *rest), leaves)

    def expected_loss(*inputs):
        flat = direct_heatmaps(*inputs).flatten(0, 1).flatten(1)
        return F.cross_entropy(flat, targets.clamp(min=-1).flatten(), ignore_index=-1, reduction="sum")

    def loss(*inputs):
        return reference._kp_net_cross_entropy(KPNets(*inputs), targets, max_elements=max_elements).sum()

    torch.testing.assert_close(gradients(loss), gradients(expected_loss), rtol=1e-10, atol=1e-10)

    weights = torch.randn(7, 5, 5, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    actual = gradients(lambda *x: (reference._kp_net_heatmaps(KPNets(*x), max_elements=max_elements) * weights).sum())
    expected = gradients(lambda *x: (direct_heatmaps(*x) * weights).sum())
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("max_elements", [1, None])
def test_gradcheck(depth, max_elements):
    spec = KPNetSpec(in_channels=2, width=3, depth=depth, num_keypoints=2)
    features, params, *rest = make_inputs(spec, num_images=2, num_instances=3, size=(2, 3))
    leaves = (features.requires_grad_(), params.requires_grad_())
    targets = torch.tensor([[0, 5], [-1, 2], [3, -1]])
    assert torch.autograd.gradcheck(
        lambda *x: reference._kp_net_cross_entropy(KPNets(*x, *rest), targets, max_elements=max_elements), leaves
    )
    assert torch.autograd.gradcheck(
        lambda *x: reference._kp_net_heatmaps(KPNets(*x, *rest), max_elements=max_elements), leaves
    )


def test_lowest_index_on_a_tie():
    # no weights: every map is constant
    features, params, *rest = make_inputs(FCPOSE)
    peaks = peaks_of(features, torch.zeros_like(params), *rest)
    assert not peaks.values.any()
    assert not peaks.indices.any()
    torch.testing.assert_close(peaks.confidence, torch.full_like(peaks.confidence, 1 / 45))

    # the feature itself, 2 at cells 7 and 12 and 0 at the other 43
    spec = KPNetSpec(in_channels=1, width=1, depth=1, num_keypoints=1)
    features = torch.zeros(1, 1, 5, 9)
    features.view(-1)[[7, 12]] = 2.0
    peaks = peaks_of(
        features, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([0]), torch.ones(1, 2), torch.ones(1), spec, 8
    )
    assert peaks.values.item() == 2
    assert peaks.indices.item() == 7
    assert peaks.confidence.item() == pytest.approx(1 / (2 + 43 * 0.1353352832))  # exp(-2)


def test_confidence_of_large_logits_is_finite():
    features, params, *rest = make_inputs(FCPOSE, dtype=torch.float32)
    peaks = peaks_of(features, params * 50, *rest)
    assert peaks.values.max() > 1e4
    assert peaks.confidence.isfinite().all()
    assert (peaks.confidence <= 1).all()


# --- no instances, nothing to learn from ---


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("num_images", [1, 2])
def test_no_instances(depth, num_images):
    spec = KPNetSpec(in_channels=3, width=4, depth=depth, num_keypoints=5)
    features, params, *rest = make_inputs(spec, num_images, num_instances=0)
    assert [tuple(x.shape) for x in peaks_of(features, params, *rest)] == [(0, 5)] * 3
    assert peaks_of(features, params, *rest).indices.dtype == torch.int64

    features.requires_grad_()
    params.requires_grad_()
    targets = torch.zeros(0, 5, dtype=torch.int64)
    for result, shape in (
        (heatmaps_of(features, params, *rest), (0, 5, 5, 9)),
        (cross_entropy_of(features, params, *rest, targets), (0, 5)),
    ):
        assert result.shape == shape
        for gradient in torch.autograd.grad(result.sum(), [features, params]):
            assert not gradient.any()


@pytest.mark.parametrize("max_elements", [1, None])
def test_all_ignored(max_elements):
    features, params, *rest = make_inputs(SPECS[0])
    features.requires_grad_()
    params.requires_grad_()
    losses = reference._kp_net_cross_entropy(
        KPNets(features, params, *rest), torch.full((7, 5), -1), max_elements=max_elements
    )
    assert not losses.any()
    for gradient in torch.autograd.grad(losses.sum(), [features, params]):
        assert not gradient.any()


def test_ignored_keypoint_leaves_no_gradient():
    # the last layer's weights and bias belong to one keypoint each
    features, params, *rest = make_inputs(KPNetSpec(3, 4, 2, 5), num_instances=2)
    params.requires_grad_()
    targets = torch.full((2, 5), 7)
    targets[1, 3] = -1
    losses = cross_entropy_of(features, params, *rest, targets)
    assert losses[1, 3] == 0
    assert losses.count_nonzero() == 9
    (gradient,) = torch.autograd.grad(losses.sum(), params)
    gradients = KPNetSpec(3, 4, 2, 5).unpack(gradient)[-1]
    for by_keypoint in gradients:
        assert not by_keypoint[1, 3].any()
        assert by_keypoint[1, 2].any()
        assert by_keypoint[0, 3].any()


def test_image_without_instances_has_zero_gradient():
    features, params, image_index, *rest = make_inputs(SPECS[0], num_images=3)
    features.requires_grad_()
    image_index = torch.tensor([2, 0, 2, 2, 0, 0, 2])
    losses = cross_entropy_of(features, params, image_index, *rest, torch.zeros(7, 5, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(losses.sum(), features)
    assert gradient.flatten(1).any(1).tolist() == [True, False, True]


# --- memory ---


@pytest.mark.parametrize("max_elements", [1, 2 * 6 * 45, 3 * 6 * 45])
@pytest.mark.parametrize("image_index", [[0] * 7, [1, 0, 2, 2, 0, 1, 2]])
def test_chunks_do_not_change_the_result(max_elements, image_index):
    features, params, _, *rest = make_inputs(SPECS[8], num_images=3)
    inputs = (features, params, torch.tensor(image_index), *rest)
    targets = torch.arange(35).view(7, 5)

    chunked = reference._kp_net_heatmaps(KPNets(*inputs), max_elements=max_elements)
    torch.testing.assert_close(chunked, heatmaps_of(*inputs), rtol=1e-12, atol=1e-12)
    chunked = reference._kp_net_peaks(KPNets(*inputs), max_elements=max_elements)
    torch.testing.assert_close(tuple(chunked), tuple(peaks_of(*inputs)), rtol=1e-12, atol=1e-12)
    chunked = reference._kp_net_cross_entropy(KPNets(*inputs), targets, max_elements=max_elements)
    torch.testing.assert_close(chunked, cross_entropy_of(*inputs, targets), rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Records the most numbers in any tensor that an operation gives."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_peaks_hold_one_chunk():
    inputs = make_inputs(FCPOSE, num_images=1, num_instances=20, size=(31, 33), dtype=torch.float32)
    with LargestTensor() as largest:
        reference._kp_net_peaks(KPNets(*inputs), max_elements=3 * 33 * 31 * 33)
    # 32 hidden channels and that of ones
    assert largest.numel == 3 * 33 * 31 * 33

    # what a call holds by default, for more people than fit in a chunk of the CPU
    inputs = make_inputs(FCPOSE, num_images=1, num_instances=100, size=(31, 33), dtype=torch.float32)
    with LargestTensor() as largest:
        peaks_of(*inputs)
    assert largest.numel <= reference._MAX_ELEMENTS_CPU < 100 * 32 * 31 * 33


def test_training_keeps_no_hidden_maps():
    features, params, *rest = make_inputs(SPECS[8], num_images=1, num_instances=20)
    features.requires_grad_()
    params.requires_grad_()
    targets = torch.zeros(20, 5, dtype=torch.int64)

    def kept(max_elements):
        numel = 0

        def pack(tensor):
            nonlocal numel
            numel += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            reference._kp_net_cross_entropy(KPNets(features, params, *rest), targets, max_elements=max_elements)
        return numel

    one_heatmap_each = 20 * 5 * 45
    assert kept(None) > 3 * one_heatmap_each
    assert kept(2 * 6 * 45) < one_heatmap_each


# --- precision ---


def test_float32_is_accurate_at_full_size():
    inputs = make_inputs(FCPOSE, num_images=1, num_instances=6, size=(100, 167), dtype=torch.float64)
    locations = torch.tensor([[4.0, 4.0], [1332, 4], [4, 796], [1332, 796], [668, 400], [301.5, 622.25]])
    scale = torch.tensor([64.0, 64, 64, 64, 16, 1333])
    inputs = (*inputs[:3], locations.double(), scale.double(), *inputs[5:])
    expected = direct_heatmaps(*inputs)
    single = tuple(x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs)

    heatmaps = heatmaps_of(*single)
    assert heatmaps.dtype == torch.float32
    for actual, wanted in zip(heatmaps, expected):
        assert relative_error(actual, wanted) < 1e-5
    flat = expected.flatten(2)
    assert relative_error(peaks_of(*single).values, flat.amax(2)) < 1e-5
    targets = torch.full((6, 17), 8000)
    losses = flat.logsumexp(2) - flat[:, :, 8000]
    assert relative_error(cross_entropy_of(*single, targets), losses) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_are_computed_in_float32(dtype):
    features, *rest = make_inputs(FCPOSE, dtype=torch.float32)
    features = features.to(dtype).requires_grad_()
    heatmaps = heatmaps_of(features, *rest)
    assert heatmaps.dtype == torch.float32
    assert torch.equal(heatmaps, heatmaps_of(features.float(), *rest))
    heatmaps.square().mean().backward()
    assert features.grad.dtype == dtype
    assert features.grad.any()


@pytest.mark.parametrize("max_elements", [1, reference._MAX_ELEMENTS_CPU])
def test_autocast_changes_nothing(monkeypatch, max_elements):
    monkeypatch.setattr(reference, "_MAX_ELEMENTS_CPU", max_elements)
    features, params, *rest = make_inputs(FCPOSE, dtype=torch.float32)
    targets = torch.zeros(7, 17, dtype=torch.int64)

    def run(autocast):
        leaves = [features.clone().requires_grad_(), params.clone().requires_grad_()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses = cross_entropy_of(*leaves, *rest, targets)
            heatmaps = heatmaps_of(*leaves, *rest)
            values = peaks_of(*leaves, *rest).values
        return losses, heatmaps, values, *torch.autograd.grad(losses.mean() + heatmaps.mean(), leaves)

    for under_autocast, without in zip(run(True), run(False)):
        assert under_autocast.dtype == torch.float32
        assert torch.equal(under_autocast, without)


def test_deterministic():
    inputs = make_inputs(FCPOSE, dtype=torch.float32, num_instances=20)
    for a, b in zip(peaks_of(*inputs), peaks_of(*inputs)):
        assert torch.equal(a, b)


# --- arguments ---


def test_peaks_record_no_gradient():
    features, params, *rest = make_inputs(SPECS[0])
    assert not peaks_of(features.requires_grad_(), params, *rest).values.requires_grad


VALID = dict(
    zip(
        ("features", "params", "image_index", "locations", "coord_scale", "spec", "stride"),
        make_inputs(KPNetSpec(in_channels=3, width=4, depth=2, num_keypoints=5)),
    )
)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "features",
            torch.zeros(2, 4, 5, 9),
            ValueError,
            r"features: expected shape \(B, 3, H, W\), got \(2, 4, 5, 9\)",
        ),
        ("features", torch.zeros(3, 5, 9), ValueError, "features: expected shape"),
        ("features", torch.zeros(2, 3, 0, 9), ValueError, "features: expected shape"),
        ("features", torch.zeros(2, 3, 5, 9, dtype=torch.int64), TypeError, "features: expected a floating-point"),
        ("params", torch.zeros(7, 50), ValueError, r"params: expected shape \(N, 49\) .* got \(7, 50\)"),
        ("params", torch.zeros(7, 49, device="meta"), ValueError, "params: expected device cpu as for features"),
        ("image_index", torch.zeros(6, dtype=torch.int64), ValueError, r"image_index: expected shape \(7,\)"),
        ("image_index", torch.zeros(7), TypeError, "image_index: expected torch.int64, got torch.float32"),
        ("image_index", torch.full((7,), 2), ValueError, "image_index: expected values below B = 2, got 2"),
        ("image_index", torch.full((7,), -1), ValueError, "image_index: expected no negative value, got -1"),
        ("locations", torch.zeros(7, 3), ValueError, r"locations: expected shape \(7, 2\), got \(7, 3\)"),
        ("locations", torch.zeros(7, 2, dtype=torch.int64), TypeError, "locations: expected a floating-point dtype"),
        ("coord_scale", torch.zeros(7, 1), ValueError, r"coord_scale: expected shape \(7,\), got \(7, 1\)"),
        ("stride", 8.0, ValueError, "stride: expected a positive int, got 8.0"),
        ("stride", 0, ValueError, "stride: expected a positive int, got 0"),
        ("backend", "cuda", ValueError, "backend: expected one of 'auto', 'native', 'triton', 'torch', got 'cuda'"),
    ],
)
def test_bad_arguments(name, value, error, message):
    with pytest.raises(error, match=message):
        KPNets(**{**VALID, name: value})


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (torch.full((7, 5), 45), ValueError, r"targets: expected values below H \* W = 45, got 45"),
        (torch.zeros(7, 5), TypeError, "targets: expected torch.int64, got torch.float32"),
        (torch.zeros(7, 4, dtype=torch.int64), ValueError, r"targets: expected shape \(7, 5\), got \(7, 4\)"),
    ],
)
def test_bad_targets(targets, error, message):
    with pytest.raises(error, match=message):
        kp_net_cross_entropy(KPNets(**VALID), targets)


# --- on a GPU ---


@pytest.mark.gpu
@pytest.mark.parametrize("num_images", [1, 3])
def test_cuda_agrees_with_the_definition(num_images):
    inputs = make_inputs(FCPOSE, num_images, num_instances=20, size=(25, 41))
    expected = direct_heatmaps(*inputs).flatten(2)
    targets = torch.full((20, 17), 500)
    on_gpu = tuple(
        (x.float() if x.is_floating_point() else x).cuda() if isinstance(x, torch.Tensor) else x for x in inputs
    )
    assert relative_error(heatmaps_of(*on_gpu).flatten(2).cpu(), expected) < 1e-5
    assert relative_error(peaks_of(*on_gpu).values.cpu(), expected.amax(2)) < 1e-5
    constant_maps = (on_gpu[0], torch.zeros_like(on_gpu[1]), *on_gpu[2:])
    assert not peaks_of(*constant_maps).indices.any()
    losses = cross_entropy_of(*on_gpu, targets.cuda())
    assert relative_error(losses.cpu(), expected.logsumexp(2) - expected[:, :, 500]) < 1e-5


@pytest.mark.gpu
def test_one_image_on_cuda_does_not_wait_for_the_device():
    inputs = make_inputs(FCPOSE, num_images=1, num_instances=20, size=(25, 41), dtype=torch.float32)
    on_gpu = tuple(x.cuda() if isinstance(x, torch.Tensor) else x for x in inputs)
    targets = torch.full((20, 17), 500, device="cuda")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        peaks_of(*on_gpu)
        cross_entropy_of(*on_gpu, targets)
    finally:
        torch.cuda.set_sync_debug_mode(before)
