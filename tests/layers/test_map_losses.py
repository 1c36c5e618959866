"""The losses over heatmaps: values by hand, both backends against the definition in float64, edges, and the kernels.

Without a GPU the kernels run in Triton's interpreter on the CPU; where there is one, the same tests run them on it.
"""

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from compiled_kernels import compile_report

from dynpose.layers import backends, triton_support
from dynpose.layers.map_losses import expected_distance, operator, reference, upsampled_cross_entropy

triton = pytest.importorskip("triton")
from dynpose.layers.map_losses import fused  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = ["torch", "triton"]
STRIDE = 8


@pytest.fixture(autouse=True)
def _kernels_run():
    if DEVICE == "cpu" and not triton_support.interprets():
        pytest.skip("the kernels run on a GPU or, with TRITON_INTERPRET=1, on the CPU")


# --- the definitions, in float64 ---


def tents(size, factor):
    """How much of each coarse cell is in each fine one: half-pixel centres, clamped to the ends."""
    fine = torch.arange(size * factor, dtype=torch.float64)
    position = ((fine + 0.5) / factor - 0.5).clamp(0, size - 1)
    return (1 - (position[:, None] - torch.arange(size)).abs()).clamp(min=0)


def direct_cross_entropy(logits, targets, factor):
    height, width = logits.shape[2:]
    rows, columns = tents(height, factor), tents(width, factor)
    losses = []
    for heatmap, target in zip(logits.flatten(0, 1), targets.flatten().tolist()):
        fine = (rows @ heatmap @ columns.T).flatten()
        losses.append(-fine.log_softmax(0)[target] if target >= 0 else fine.sum() * 0)
    return torch.stack(losses).view(targets.shape)


def direct_expected_distance(logits, offsets, image_index, keypoints, box_sizes, stride, norm):
    losses = []
    for n, image in enumerate(image_index.tolist()):
        for k, (x, y, visibility) in enumerate(keypoints[n].tolist()):
            if visibility == 0:
                losses.append(logits.sum() * 0)
                continue
            u = torch.arange(logits.shape[3]) * stride + stride // 2
            v = torch.arange(logits.shape[2]) * stride + stride // 2
            error_x = u + offsets[image, k, 0] - x
            error_y = v[:, None] + offsets[image, k, 1] - y
            distance = (error_x**2 + error_y**2).sqrt() / max(box_sizes[n].item(), 1.0)
            # tanh(a / 2) = 2 * (sigmoid(a) - 1/2)
            squashed = 2 * ((norm * distance).sigmoid() - 0.5)
            losses.append((logits[n, k].flatten().softmax(0) * squashed.flatten()).sum() / norm)
    return torch.stack(losses).view(keypoints.shape[:2])


def test_the_definition_is_bilinear_interpolation():
    maps = torch.randn(1, 1, 3, 4, dtype=torch.float64)
    for factor in (1, 2, 3, 4):
        expected = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
        torch.testing.assert_close(tents(3, factor) @ maps @ tents(4, factor).T, expected)


# --- inputs ---


def random_logits(shape, dtype=torch.float32, scale=4.0, seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return values.to(DEVICE, dtype)


def random_targets(shape, factor, seed=0):
    num_cells = shape[2] * shape[3] * factor**2
    return torch.randint(-2, num_cells, shape[:2], generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def random_people(shape, num_images, seed=0):
    """Offsets, image index, keypoints and box sizes."""
    num_instances, num_keypoints, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(num_images, num_keypoints, 2, height, width, generator=generator) * 4
    image_index = torch.randint(num_images, (num_instances,), generator=generator)
    keypoints = torch.rand(num_instances, num_keypoints, 3, generator=generator)
    keypoints *= torch.tensor([width * STRIDE, height * STRIDE, 3.0])
    keypoints[..., 2].floor_()
    box_sizes = torch.rand(num_instances, generator=generator) * 60
    return tuple(x.to(DEVICE) for x in (offsets, image_index, keypoints, box_sizes))


def with_gradients(function, *leaves, seed=0):
    """Result of a function, and its gradients by some weights of it."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    result = function(*leaves)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradients = torch.autograd.grad((result * weights.to(result)).sum(), leaves)
    return [result.detach(), *gradients]


def assert_close(actual, expected, relative=1e-5):
    """Relative to the largest value of each tensor, or to 0.01; ``expected`` is in float64 on the CPU."""
    for a, e in zip(actual, expected):
        a = a.detach().cpu().double()
        assert a.shape == e.shape
        error, largest = (a - e.detach()).abs().max().item(), e.abs().max().item()
        assert error <= relative * max(largest, 0.01), (error, largest)


def check_cross_entropy(logits, targets, factor, backend="triton", relative=1e-5):
    actual = with_gradients(lambda x: upsampled_cross_entropy(x, targets, factor, backend=backend), logits)
    exact = with_gradients(lambda x: direct_cross_entropy(x, targets.cpu(), factor), logits.cpu().double())
    assert_close(actual[:1], exact[:1])
    assert_close(actual[1:], exact[1:], relative)
    return actual


def check_expected_distance(logits, offsets, image_index, keypoints, box_sizes, backend="triton", relative=1e-5):
    def run(x, o):
        return expected_distance(x, o, image_index, keypoints, box_sizes, stride=STRIDE, backend=backend)

    people = (image_index.cpu(), keypoints.cpu().double(), box_sizes.cpu().double())
    actual = with_gradients(run, logits, offsets)
    exact = with_gradients(
        lambda x, o: direct_expected_distance(x, o, *people, STRIDE, 12.0),
        logits.cpu().double(),
        offsets.cpu().double(),
    )
    assert_close(actual[:1], exact[:1])
    assert_close(actual[1:], exact[1:], relative)
    return actual


# --- by hand ---


@pytest.mark.parametrize("backend", BACKENDS)
def test_cross_entropy_of_cells_by_hand(backend):
    logits = torch.zeros(1, 2, 2, 3, device=DEVICE)
    logits[0, 0, 1, 2] = math.log(5)
    loss = upsampled_cross_entropy(logits, torch.tensor([[5, -1]], device=DEVICE), factor=1, backend=backend)
    # softmax of the cell: 5 / (5 + 5)
    assert loss.tolist() == [[pytest.approx(math.log(2)), 0.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_upsampled_cross_entropy_by_hand(backend):
    logits = torch.tensor([0.0, 4.0], device=DEVICE).view(1, 1, 1, 2).requires_grad_()
    # two equal fine rows, with the values 0, 1, 3, 4; the target is the 3 of the second
    loss = upsampled_cross_entropy(logits, torch.tensor([[6]], device=DEVICE), factor=2, backend=backend)
    total = 2 * (1 + math.exp(1) + math.exp(3) + math.exp(4))
    assert loss.item() == pytest.approx(math.log(total) - 3, rel=1e-6)
    loss.backward()
    left = 2 * (1 + 0.75 * math.exp(1) + 0.25 * math.exp(3)) / total - 0.25
    assert logits.grad.flatten().tolist() == pytest.approx([left, -left], rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_expected_distance_by_hand(backend):
    # two cells at x = 4 and 12 with weights 3/4 and 1/4; the offsets bring the first onto the keypoint
    logits = torch.tensor([math.log(3), 0.0], device=DEVICE).view(1, 1, 1, 2).requires_grad_()
    offsets = torch.tensor([[2.0, 0.0], [0.0, 0.0]], device=DEVICE).view(1, 1, 2, 1, 2).requires_grad_()
    index, keypoints = torch.tensor([0], device=DEVICE), torch.tensor([[[6.0, 4.0, 2.0]]], device=DEVICE)
    size = torch.tensor([12.0], device=DEVICE)
    loss = expected_distance(logits, offsets, index, keypoints, size, stride=8, distance_norm=12.0, backend=backend)
    squashed = 2 * (1 / (1 + math.exp(-12 * 6 / 12)) - 0.5)
    assert loss.item() == pytest.approx(0.25 * squashed / 12, rel=1e-5)
    loss.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-3 / 16 * squashed / 12, 3 / 16 * squashed / 12], rel=1e-5)
    # the first cell has no slope where it is; the second: 1/4 * (1 - squashed^2) * (12 / 2) / 12 / 12 pixels
    slope = 0.25 * (1 - squashed**2) / 2 / 12
    assert offsets.grad.flatten().tolist() == pytest.approx([0, slope, 0, 0], rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_boxes_have_at_least_a_pixel(backend):
    logits, offsets = torch.zeros(2, 1, 1, 1, device=DEVICE), torch.zeros(1, 1, 2, 1, 1, device=DEVICE)
    keypoints = torch.tensor([[[4.125, 4.0, 2.0]]], device=DEVICE).expand(2, 1, 3)
    index, sizes = torch.zeros(2, dtype=torch.int64, device=DEVICE), torch.tensor([0.0, 2.0], device=DEVICE)
    loss = expected_distance(logits, offsets, index, keypoints, sizes, stride=8, distance_norm=2.0, backend=backend)
    assert loss.flatten().tolist() == pytest.approx([math.tanh(0.125) / 2, math.tanh(0.0625) / 2], rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unlabelled_keypoints_cost_nothing(backend):
    logits = random_logits((1, 2, 3, 3)).requires_grad_()
    offsets = torch.zeros(1, 2, 2, 3, 3, device=DEVICE).requires_grad_()
    keypoints = torch.tensor([[[math.nan, math.inf, 0.0], [4.0, 4.0, 1.0]]], device=DEVICE)
    index, size = torch.tensor([0], device=DEVICE), torch.tensor([40.0], device=DEVICE)
    loss = expected_distance(logits, offsets, index, keypoints, size, stride=8, backend=backend)
    assert loss[0, 0] == 0
    assert 0 < loss[0, 1] < 1
    # the released square root has no gradient where the second keypoint's cell meets it: users report NaN runs
    for gradient, kind in zip(torch.autograd.grad(loss.sum(), (logits, offsets)), (logits[:, 0], offsets[:, 0])):
        assert gradient.isfinite().all()
        assert gradient[:, 1].abs().sum() > 0
        assert torch.equal(gradient[:, 0], torch.zeros_like(kind))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", [1e-7, 1e-2, 0.5, 3.0, 50.0])
def test_distances_of_all_sizes(backend, distance):
    """A cell in pixel 0 that is this far from the keypoint: a part of a box of 100 pixels, or of the floor."""
    logits, index = torch.zeros(1, 1, 1, 1, device=DEVICE), torch.tensor([0], device=DEVICE)
    offsets = torch.tensor([0.6 * distance, -0.8 * distance], device=DEVICE).view(1, 1, 2, 1, 1).requires_grad_()
    keypoints, size = torch.tensor([[[0.0, 0.0, 1.0]]], device=DEVICE), torch.tensor([100.0], device=DEVICE)
    loss = expected_distance(logits, offsets, index, keypoints, size, stride=1, backend=backend)
    assert loss.item() == pytest.approx(math.tanh(6 * max(distance, 1e-6) / 100) / 12, rel=1e-5)
    loss.backward()
    slope = (1 - math.tanh(6 * distance / 100) ** 2) * 6 / 100 / 12 if distance > 1e-6 else 0.0
    assert offsets.grad.flatten().tolist() == pytest.approx([0.6 * slope, -0.8 * slope], rel=2e-4)


# --- against the definition ---

# (N, K, H, W), factor. A part of the kernels is 16 x 64 cells.
SHAPES = [
    ((1, 2, 5, 7), 4),
    ((2, 1, 1, 1), 4),
    ((1, 2, 1, 9), 2),
    ((1, 2, 9, 1), 2),
    ((2, 2, 4, 5), 1),
    ((1, 1, 3, 4), 3),
    ((1, 1, 18, 66), 2),
    ((1, 1, 33, 64), 1),
]


@pytest.mark.parametrize(("shape", "factor"), SHAPES, ids=str)
def test_cross_entropy_against_the_definition(shape, factor):
    check_cross_entropy(random_logits(shape), random_targets(shape, factor), factor)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("max_elements", [1, 2**26])
def test_reference_cross_entropy_against_the_definition(factor, max_elements):
    shape = (3, 2, 4, 5)
    logits, targets = random_logits(shape, torch.float64).cpu(), random_targets(shape, factor).cpu()
    actual = with_gradients(
        lambda x: reference._upsampled_cross_entropy(x, targets, factor, max_elements=max_elements), logits
    )
    assert_close(actual, with_gradients(lambda x: direct_cross_entropy(x, targets, factor), logits), 1e-11)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_every_fine_cell_as_target(factor):
    targets = torch.arange(2 * 2 * factor**2, device=DEVICE)[None]
    logits = random_logits((1, 1, 2, 2)).expand(1, targets.shape[1], 2, 2)
    check_cross_entropy(logits, targets, factor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    relative = torch.finfo(dtype).eps
    shape = (2, 1, 5, 7)
    logits = random_logits(shape, dtype)
    loss, gradient = check_cross_entropy(logits, random_targets(shape, 2), 2, relative=relative)
    assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
    offsets, *people = random_people(shape, 2)
    loss, *gradients = check_expected_distance(logits, offsets.to(dtype), *people, relative=relative)
    assert [x.dtype for x in (loss, *gradients)] == [torch.float32, dtype, dtype]


@pytest.mark.parametrize("backend", BACKENDS)
def test_steep_logits(backend):
    """One cell above all others by more than float32's exponential spans: no overflow, no sum of nothing."""
    logits = torch.full((1, 2, 6, 6), -300.0, device=DEVICE)
    logits[0, 0, 2, 3] = 300.0
    logits[0, 1] = 300.0
    targets = torch.tensor([[(2 * 4 + 1) * 24 + 3 * 4 + 1, 0]], device=DEVICE)
    # float32 holds numbers near 300 to 3e-5
    loss, gradient = check_cross_entropy(logits, targets, 4, backend, relative=1e-4)
    # four fine cells around the steep one's centre are equal
    assert loss[0].tolist() == pytest.approx([math.log(4), math.log(24 * 24)], rel=1e-4)
    assert gradient.isfinite().all()
    offsets, index, keypoints, sizes = random_people((1, 2, 6, 6), 1)
    keypoints[..., 2] = 2
    check_expected_distance(logits, offsets, index, keypoints, sizes, backend)


# (N, K, H, W), images. A backward program takes 128 cells and four instances at a time.
@pytest.mark.parametrize(
    ("shape", "num_images"),
    [((11, 1, 5, 7), 2), ((3, 2, 3, 4), 3), ((2, 1, 1, 1), 1), ((2, 2, 18, 66), 2), ((1, 1, 33, 5), 4)],
    ids=str,
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_expected_distance_against_the_definition(shape, num_images, backend):
    check_expected_distance(random_logits(shape, scale=2.0), *random_people(shape, num_images), backend)


def test_many_parts(monkeypatch):
    """Maps of more parts than the merge kernels read at once."""
    monkeypatch.setitem(fused.MERGE, "BLOCK", 4)
    shape = (1, 1, 33, 66)  # 3 x 2 parts
    check_cross_entropy(random_logits(shape), random_targets(shape, 1), 1)
    offsets, index, keypoints, sizes = random_people(shape, 1)
    keypoints[..., 2] = 2
    check_expected_distance(random_logits(shape), offsets, index, keypoints, sizes)


@pytest.mark.parametrize("max_elements", [1, 2**26])
def test_reference_expected_distance_against_the_definition(max_elements):
    shape = (5, 2, 4, 5)
    logits = random_logits(shape, torch.float64).cpu()
    offsets, index, keypoints, sizes = (x.cpu() for x in random_people(shape, 3))
    people = (index, keypoints.double(), sizes.double())
    actual = with_gradients(
        lambda x, o: reference._expected_distance(x, o, *people, STRIDE, 12.0, max_elements=max_elements),
        logits,
        offsets.double(),
    )
    exact = with_gradients(lambda x, o: direct_expected_distance(x, o, *people, STRIDE, 12.0), logits, offsets.double())
    assert_close(actual, exact, 1e-11)


@pytest.mark.parametrize("max_elements", [1, 2**26])
def test_gradcheck(max_elements):
    shape = (2, 2, 2, 3)
    logits = random_logits(shape, torch.float64, scale=1.0).cpu().requires_grad_()
    offsets, index, keypoints, sizes = (x.cpu() for x in random_people(shape, 2))
    offsets = offsets.double().requires_grad_()
    people = (index, keypoints.double(), sizes.double())
    targets = random_targets(shape, 2).cpu()
    assert torch.autograd.gradcheck(
        lambda x: reference._upsampled_cross_entropy(x, targets, 2, max_elements=max_elements), logits
    )
    assert torch.autograd.gradcheck(
        lambda x, o: reference._expected_distance(x, o, *people, STRIDE, 12.0, max_elements=max_elements),
        (logits, offsets),
    )


# --- properties ---


def run_both(logits, offsets, targets, people, factor=2, backend="triton"):
    """Losses of both operators."""
    return torch.stack([
        upsampled_cross_entropy(logits, targets, factor, backend=backend),
        expected_distance(logits, offsets, *people, stride=STRIDE, backend=backend),
    ])  # fmt: skip


def inputs_of_both(shape, num_images=2, factor=2):
    offsets, *people = random_people(shape, num_images)
    return random_logits(shape), offsets, random_targets(shape, factor), people


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_instances(backend):
    logits, offsets, targets, people = inputs_of_both((0, 2, 3, 3))
    losses, *gradients = with_gradients(lambda x, o: run_both(x, o, targets, people, backend=backend), logits, offsets)
    assert losses.shape == (2, 0, 2)
    assert [x.shape for x in gradients] == [logits.shape, offsets.shape]
    assert not gradients[1].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_ignored(backend):
    logits, offsets, targets, (index, keypoints, sizes) = inputs_of_both((2, 2, 3, 3))
    targets.fill_(-1)
    keypoints[..., 2] = 0
    people = (index, keypoints, sizes)
    results = with_gradients(lambda x, o: run_both(x, o, targets, people, backend=backend), logits, offsets)
    assert not any(x.any() for x in results)


def test_strided_inputs():
    """Expanded gradients, and maps and indices that are not contiguous."""
    logits, offsets, targets, (index, keypoints, sizes) = inputs_of_both((3, 2, 4, 5))
    people = (index, keypoints, sizes)
    expected = with_gradients(lambda x, o: run_both(x, o, targets, people), logits, offsets)
    strided = [torch.stack([x, x], dim=-1)[..., 0] for x in (logits, offsets, targets, *people)]
    logits, offsets, targets, *people = strided
    actual = with_gradients(lambda x, o: run_both(x, o, targets, people), logits, offsets)
    assert all(map(torch.equal, actual, expected))
    x = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(upsampled_cross_entropy(x, targets, 2, backend="triton").sum(), x)
    (expected,) = torch.autograd.grad(upsampled_cross_entropy(x, targets, 2, backend="torch").sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_kernels_write_everything_they_return(deterministic):
    """With deterministic algorithms on, torch fills new tensors with NaN."""
    logits, offsets, targets, (_, keypoints, sizes) = inputs_of_both((3, 2, 5, 7), num_images=3)
    targets[1, 1] = -1
    keypoints[1, 1, 2] = 0
    people = (torch.tensor([2, 0, 2], device=DEVICE), keypoints, sizes)
    assert torch.empty(3, device=DEVICE).isnan().all()
    results = with_gradients(lambda x, o: run_both(x, o, targets, people), logits, offsets)
    assert all(x.isfinite().all() for x in results)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_repeats_give_the_same_bits():
    logits, offsets, targets, people = inputs_of_both((6, 1, 3, 5))
    first, second = (with_gradients(lambda x, o: run_both(x, o, targets, people), logits, offsets) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend):
    logits, offsets, targets, people = inputs_of_both((2, 1, 3, 4))
    plain = run_both(logits, offsets, targets, people, backend=backend)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        cast = run_both(logits, offsets, targets, people, backend=backend)
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_in_one_graph(backend):
    logits, offsets, targets, people = inputs_of_both((2, 1, 3, 4))
    torch._dynamo.reset()
    compiled = torch.compile(run_both, fullgraph=True, backend="aot_eager")
    expected = with_gradients(lambda x, o: run_both(x, o, targets, people, backend=backend), logits, offsets)
    actual = with_gradients(lambda x, o: compiled(x, o, targets, people, backend=backend), logits, offsets)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_opcheck():
    shape = (2, 1, 2, 3)
    logits, offsets, targets, people = inputs_of_both(shape)
    loss = torch.rand(shape[:2], device=DEVICE)
    torch.library.opcheck(fused._cross_entropy_op, (logits.requires_grad_(), targets, 2))
    torch.library.opcheck(fused._distance_op, (logits, offsets.requires_grad_(), *people, STRIDE, 12.0))
    logits, offsets = logits.detach(), offsets.detach()
    torch.library.opcheck(fused._cross_entropy_backward_op, (loss, logits, targets, loss, 2))
    torch.library.opcheck(fused._distance_backward_op, (loss, logits, offsets, *people, loss, loss, STRIDE, 12.0))


# --- which backend runs ---


def test_auto_on_the_cpu_is_the_reference(monkeypatch, caplog):
    monkeypatch.setattr(operator, "fused", None)
    logits, offsets, targets, people = inputs_of_both((1, 1, 2, 2))
    cpu = [x.cpu() for x in (logits, offsets, targets)]
    with caplog.at_level(logging.WARNING):
        run_both(*cpu, [x.cpu() for x in people], backend="auto")
    assert not caplog.records


def test_where_the_kernels_cannot_run_the_reference_does(caplog):
    logits, offsets, targets, people = inputs_of_both((1, 1, 2, 2))
    logits, offsets = logits.double(), offsets.double()
    backends._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        actual = run_both(logits, offsets, targets, people, backend="triton")
        run_both(logits, offsets, targets, people, backend="triton")
    assert actual.dtype == torch.float64
    assert torch.equal(actual, run_both(logits, offsets, targets, people, backend="torch"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("upsampled_cross_entropy does not run on backend 'triton'")
    assert messages[1].startswith("expected_distance does not run on backend 'triton'")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backend": "cuda"}, ValueError, "backend: expected one of 'auto', .*'torch', got 'cuda'"),
        ({"factor": 0}, ValueError, "factor: expected a positive int, got 0"),
        ({"factor": 2.0}, ValueError, "factor: expected a positive int"),
        ({"logits": torch.zeros(2, 3, 4)}, ValueError, r"logits: expected shape \(N, K, H, W\)"),
        ({"logits": torch.zeros(2, 1, 0, 4)}, ValueError, r"logits: expected shape \(N, K, H, W\)"),
        ({"logits": torch.zeros(2, 1, 3, 4, dtype=torch.int64)}, TypeError, "logits: expected a floating-point dtype"),
        ({"targets": torch.zeros(2, 2, dtype=torch.int64)}, ValueError, r"targets: expected shape \(2, 1\)"),
        ({"targets": torch.zeros(2, 1)}, TypeError, "targets: expected torch.int64"),
        ({"targets": torch.tensor([[0], [48]])}, ValueError, r"targets: expected values below .* = 48, got 48"),
        ({"offsets": torch.zeros(2, 1, 2, 4, 3)}, ValueError, r"offsets: expected shape \(2, 1, 2, 3, 4\)"),
        ({"image_index": torch.tensor([0, 2])}, ValueError, "image_index: expected values below B = 2, got 2"),
        ({"image_index": torch.tensor([0, -1])}, ValueError, "image_index: expected no negative value, got -1"),
        ({"keypoints": torch.zeros(2, 1, 2)}, ValueError, r"keypoints: expected shape \(2, 1, 3\)"),
        ({"box_sizes": torch.zeros(1)}, ValueError, r"box_sizes: expected shape \(2,\)"),
        ({"stride": 0}, ValueError, "stride: expected a positive int, got 0"),
        ({"distance_norm": 0.0}, ValueError, "distance_norm: expected a positive number, got 0.0"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {
        "logits": torch.zeros(2, 1, 3, 4),
        "targets": torch.zeros(2, 1, dtype=torch.int64),
        "factor": 2,
        "offsets": torch.zeros(2, 1, 2, 3, 4),
        "image_index": torch.tensor([1, 0]),
        "keypoints": torch.zeros(2, 1, 3),
        "box_sizes": torch.ones(2),
        "stride": STRIDE,
        "distance_norm": 12.0,
        "backend": "auto",
    }
    arguments.update(change)
    cross_entropy = ("logits", "targets", "factor", "backend")
    distance = [name for name in arguments if name not in ("targets", "factor")]
    name = next(iter(change))
    if name in cross_entropy:
        with pytest.raises(error, match=message):
            upsampled_cross_entropy(**{name: arguments[name] for name in cross_entropy})
    if name in distance:
        with pytest.raises(error, match=message):
            expected_distance(**{name: arguments[name] for name in distance})


# --- the compiled kernels ---


def test_kernels_compile_without_spills():
    names = {
        "upsampled_lse_kernel": fused.PARTS,
        "upsampled_merge_kernel": fused.MERGE,
        "upsampled_backward_kernel": fused.PARTS,
        "distance_parts_kernel": fused.PARTS,
        "distance_merge_kernel": fused.MERGE,
        "distance_backward_kernel": fused.DISTANCE_BACKWARD,
    }
    indices = dict.fromkeys(["targets", "image_index", "order", "starts"], "*i64")
    floats = dict.fromkeys(["grad_losses", "keypoints", "box_sizes", "partial", "losses", "lse"], "*fp32")
    maps = dict.fromkeys(["logits", "offsets", "grad_logits", "grad_offsets"], "*fp32")
    numbers = dict.fromkeys(["height", "width", "parts", "num_keypoints", "stride"], "i32")
    signature = {**indices, **floats, **maps, **numbers, "distance_norm": "fp32"}
    reports = compile_report([
        {
            "kernel": f"dynpose.layers.map_losses.kernels:{name}",
            "signature": signature,
            "constants": {**launch, "FACTOR": 4},
            "options": {"num_warps": launch["num_warps"]},
        }
        for name, launch in names.items()
    ])  # fmt: skip
    assert len(reports) == 2 * len(names)
    for report in reports:
        assert report["spill_bytes"] == report["stack_bytes"] == 0, report
        # enough of 65,536 for 12 warps of every multiprocessor
        assert report["registers"] <= 168, report
        # new sizes must not compile again
        assert report["specialised"] == [], report


# --- on a GPU, at full size ---

FULL = (70, 17, 100, 168)
MIB = 2**20


def peak_memory(function):
    """What a function returns, and how many bytes more than before were held at once while it ran."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    torch.cuda.synchronize()
    return result, torch.cuda.max_memory_allocated() - before


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(2))
def test_cross_entropy_at_full_size(dtype, seed):
    logits = random_logits(FULL, dtype, seed=seed).requires_grad_()
    targets = random_targets(FULL, 4, seed)
    weights = torch.rand(FULL[:2], device="cuda")

    losses, held = peak_memory(lambda: upsampled_cross_entropy(logits, targets, 4))
    assert held < MIB
    (gradient,), held = peak_memory(lambda: torch.autograd.grad(losses, logits, weights, retain_graph=True))
    assert held < logits.nbytes + MIB
    for _ in range(5):
        assert torch.equal(upsampled_cross_entropy(logits, targets, 4), losses)
        assert torch.equal(torch.autograd.grad(losses, logits, weights, retain_graph=True)[0], gradient)

    for part in torch.arange(FULL[0], device="cuda").split(10):
        exact = logits[part].detach().double().requires_grad_()
        expected = upsampled_cross_entropy(exact, targets[part], 4, backend="torch")
        torch.testing.assert_close(losses[part].double(), expected, rtol=1e-5, atol=1e-5)
        (expected,) = torch.autograd.grad(expected, exact, weights[part].double())
        tolerance = {"rtol": 2 * torch.finfo(dtype).eps + 1e-4, "atol": 1e-6}
        torch.testing.assert_close(gradient[part].double(), expected, **tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_images", [1, 16])
def test_expected_distance_at_full_size(dtype, num_images):
    logits = random_logits(FULL, dtype).requires_grad_()
    offsets, *people = random_people(FULL, num_images)
    offsets.requires_grad_()
    weights = torch.rand(FULL[:2], device="cuda")

    losses, held = peak_memory(lambda: expected_distance(logits, offsets, *people, stride=STRIDE))
    assert held < MIB
    leaves = (logits, offsets)
    gradients, held = peak_memory(lambda: torch.autograd.grad(losses, leaves, weights, retain_graph=True))
    assert held < logits.nbytes + offsets.nbytes + MIB
    for _ in range(5):
        again = torch.autograd.grad(losses, leaves, weights, retain_graph=True)
        assert all(map(torch.equal, again, gradients))

    exact = [x.detach().double().requires_grad_() for x in leaves]
    index, *rest = people
    expected = expected_distance(*exact, index, *(x.double() for x in rest), stride=STRIDE, backend="torch")
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-7)
    expected = torch.autograd.grad(expected, exact, weights.double())
    # a difference of two numbers near 1, times a probability
    torch.testing.assert_close(gradients[0].double(), expected[0], rtol=2 * torch.finfo(dtype).eps + 1e-3, atol=1e-8)
    torch.testing.assert_close(gradients[1].double(), expected[1], rtol=1e-3, atol=1e-8)


@pytest.mark.gpu
def test_more_than_two_to_the_31_numbers():
    shape = (1000, 133, 128, 128)
    if torch.cuda.get_device_properties(0).total_memory < 20 * 2**30:
        pytest.skip("needs 20 GiB of GPU memory")
    logits = torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_()
    assert logits.numel() > 2**31
    targets = random_targets(shape, 2)
    offsets, *people = random_people(shape, 1)
    run = {
        "upsampled": lambda x, rows: upsampled_cross_entropy(x, targets[rows], 2),
        "distance": lambda x, rows: expected_distance(x, offsets, *(p[rows] for p in people), stride=STRIDE),
    }
    for function in run.values():
        losses = function(logits, slice(None))
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        rows = slice(-2, None)
        last = logits[rows].detach().clone().requires_grad_()
        expected = function(last, rows)
        assert torch.equal(losses[rows], expected)
        assert torch.equal(gradient[rows], torch.autograd.grad(expected.sum(), last)[0])
        del losses, gradient
