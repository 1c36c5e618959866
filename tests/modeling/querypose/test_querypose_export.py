"""QueryPose's ``detect`` in an ONNX file, in two runtimes, and in a trace."""

import pytest
import torch
import torch.nn.functional as F
from querypose_models import NUM_QUERIES, tiny_model
from torch import nn

from dynpose.export.capture import captured
from dynpose.modeling.detections import Detections
from dynpose.runtime.sessions import openvino_core

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# of a batch, height and width before padding; 448 is a threshold between levels of the pyramid
BATCHES = ([(64, 96)], [(100, 170), (128, 192), (97, 161)], [(448, 448)], [(31, 640)])


class FromTensors(nn.Module):
    """``detect`` of a model as ``forward``, which exporters start from."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, image_sizes):
        return tuple(self.model.detect(images, image_sizes))


def smooth_batch(sizes, seed=0):
    """Padded images (B, 3, H, W), smooth like photographs, and their sizes (B, 2)."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes))
    images = torch.zeros(len(sizes), 3, height, width)
    for image, size in zip(images, sizes):
        coarse = torch.randn(1, 3, 6, 8, generator=generator)
        image[:, : size[0], : size[1]] = F.interpolate(coarse, size, mode="bicubic", align_corners=False)[0]
    return images, torch.tensor(sizes)


@pytest.fixture(scope="module")
def network():
    """A stage of the full version and one of the light version, on two levels, since an export costs seconds."""
    # two classes of six queries: some are dropped
    options = {"num_stages": 2, "max_detections": 8, "box": {"num_classes": 2}, "in_features": ("p2", "p3")}
    model, light = tiny_model(**options), tiny_model(keypoint={"dynamic_mlp": False}, **options)
    model.keypoint_stages[1] = light.keypoint_stages[1]
    return FromTensors(model).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    images, sizes = smooth_batch([(128, 192), (97, 161)])
    # torch.onnx.export alone may fix a dynamic size without an error
    program = captured(network, (images, sizes), 32)
    path = tmp_path_factory.mktemp("querypose") / "model.onnx"
    torch.onnx.export(
        program,
        (images, sizes),
        path,
        dynamo=True,
        opset_version=20,
        input_names=["images", "image_sizes"],
        output_names=Detections._fields,
        verbose=False,
        # as for CID: seconds, for a smaller graph with the same results
        optimize=False,
    )
    return path


def run_onnxruntime(file):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def run_openvino(file):
    pytest.importorskip("openvino")
    # in float32: bfloat16 is the default on some CPUs
    options = {"EXECUTION_MODE_HINT": "ACCURACY"}
    compiled = openvino_core().compile_model(file, "CPU", options)

    return lambda inputs: list(compiled(inputs).to_tuple())


@pytest.mark.parametrize("runtime", [run_onnxruntime, run_openvino])
def test_exported_file_equals_the_model(network, file, runtime):
    """Any number of images of any size; scores to 1e-4, boxes and keypoints to 0.01 pixels, the same people."""
    run = runtime(file)
    for seed, sizes in enumerate(BATCHES):
        images, image_sizes = smooth_batch(sizes, seed)
        results = run({"images": images.numpy(), "image_sizes": image_sizes.numpy()})
        found, expected = Detections(*map(torch.from_numpy, results)), Detections(*network(images, image_sizes))
        assert found.image.tolist() == expected.image.tolist() == [i for i in range(len(sizes)) for _ in range(8)]
        assert torch.equal(found.classes, expected.classes)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.01)
        torch.testing.assert_close(found.keypoints[..., :2], expected.keypoints[..., :2], rtol=0, atol=0.01)
        torch.testing.assert_close(found.keypoints[..., 2], expected.keypoints[..., 2], rtol=0, atol=1e-4)
        # otherwise, equal results would say little
        assert expected.boxes.std(dim=0).min() > 1


def test_standard_operators_only(file):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""}
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    # RoiAlign of 22 has no kernel in onnxruntime
    assert 16 <= opset < 22
    assert not model.functions


def test_a_trace_holds_for_other_sizes():
    """torch.jit.trace of ``detect``, with images and their sizes as tensors."""
    model = tiny_model(num_stages=2).eval().requires_grad_(False)

    class Detect(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images, image_sizes):
            return tuple(self.model.detect(images, image_sizes))

    network = Detect().eval()
    generator = torch.Generator().manual_seed(0)
    first, other = (torch.randn((2, 3, *size), generator=generator) for size in ((64, 96), (160, 96)))
    sizes, other_sizes = torch.tensor([[64, 96], [60, 80]]), torch.tensor([[150, 90], [160, 96]])
    traced = torch.jit.trace(network, (first, sizes), check_trace=False)
    for inputs in ((first, sizes), (other, other_sizes)):
        for found, expected in zip(traced(*inputs), network(*inputs)):
            assert found.shape[0] == 2 * NUM_QUERIES
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
