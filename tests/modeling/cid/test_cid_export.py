"""The exported graph of detection against the model: ONNX in two runtimes, torch.export and a TorchScript trace."""

import numpy as np
import pytest
import torch
from cid_models import tiny_model

from dynpose.config import ConfigError
from dynpose.export.capture import captured
from dynpose.modeling.soft_oks_nms import SoftOKSNMS
from dynpose.runtime.sessions import openvino_core

# images of the small network are padded to a multiple of this
MULTIPLE = 8
MAX_PEOPLE = 60
NAMES = ["image", "boxes", "scores", "classes", "keypoints"]


class Detect(torch.nn.Module):
    """``detect`` as a module."""

    def __init__(self, model, flip=False):
        super().__init__()
        self.model = model
        self.flip = flip

    def forward(self, images, image_sizes):
        return tuple(self.model.detect(images, image_sizes, flip=self.flip))


def small_model(**options):
    """Finds a person wherever the image is not zero, up to 60."""
    model = tiny_model(iia={"score_thresh": 0.2, "max_proposals": MAX_PEOPLE}, **options).eval()
    centers = model.iia.heatmaps
    with torch.no_grad():
        # a blank image has one feature: the centre map is low there, and higher with any other
        model.backbone.conv.bias.zero_()
        centers.weight[-1] = 0
        centers.weight[-1, 0] = 8
        centers.bias[-1] = -4
    return model


def scene(num_people, size=(96, 160), seed=0):
    """An image (3, h, w) with patches of the first feature, each at its own place and of its own strength.

    The background is faint noise: on a blank one every cell is a peak of the heatmaps, and rounding chooses among them.
    """
    weight = small_model().backbone.conv.weight[0].detach()
    generator = torch.Generator().manual_seed(seed)
    image = 0.1 * torch.randn(3, *size, generator=generator)
    places = [(y, x) for y in range(0, size[0] - 3, 16) for x in range(0, size[1] - 3, 16)]
    for y, x in places[:num_people]:
        strength = 1 + torch.rand(1, generator=generator)
        image[:, y : y + 4, x : x + 4] = strength * weight / weight.square().sum()
    return image


def padded(images):
    """Batch images (3, h, w): (B, 3, H, W) and (B, 2) sizes."""
    height, width = (-(-max(image.shape[axis] for image in images) // MULTIPLE) * MULTIPLE for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width)
    for index, image in enumerate(images):
        batch[index, :, : image.shape[1], : image.shape[2]] = image
    return batch, torch.tensor([image.shape[1:] for image in images])


def noise(*size, seed=0):
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))


# name -> images of a batch
BATCHES = {
    "nobody": [scene(0)],
    "1": [scene(1, (50, 70))],
    "7": [scene(7, (65, 66))],
    "30": [scene(30)],
    "60": [scene(60)],
    "noise": [noise(96, 160)],
    "three sizes": [noise(61, 130), scene(7, (96, 101)), scene(0, (33, 47))],
}


def export(model, path):
    example = torch.zeros(2, 3, 24, 32), torch.tensor([[24, 32], [20, 27]])
    program = captured(Detect(model), example, MULTIPLE)
    torch.onnx.export(
        program,
        f=str(path),
        dynamo=True,
        input_names=["images", "image_sizes"],
        output_names=NAMES,
        opset_version=20,
        verbose=False,
        # a third of the time, for a smaller graph with the same results
        optimize=False,
    )
    return program


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The model, its exported program and the ONNX file.

    With mirror images the graph has the same parts twice, and is traced only: an export takes many seconds.
    """
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("cid") / "cid.onnx"
    model = small_model()
    with torch.no_grad():
        program = export(model, path)
    return model, program, str(path)


@pytest.fixture(scope="session")
def runtimes(exported):
    """Functions that run the file, by name."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    path = exported[-1]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino_core().compile_model(path, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
    return {
        "onnxruntime": lambda images, sizes: session.run(NAMES, {"images": images, "image_sizes": sizes}),
        "openvino": lambda images, sizes: [compiled((images, sizes))[name] for name in NAMES],
    }


def assert_same(found, expected):
    """The same people: scores to 1e-4, positions to 0.01 pixel, apart from the choice among equal neighbours."""
    found = dict(zip(NAMES, (np.asarray(values) for values in found)))
    assert found["image"].tolist() == expected.image.tolist()
    assert not found["classes"].any()
    np.testing.assert_allclose(found["scores"], expected.scores, rtol=0, atol=1e-4)
    distance = np.abs(found["keypoints"][..., :2] - expected.keypoints[..., :2].numpy()).max(axis=-1)
    # a shift of a quarter of a cell to the other side, of the smallest differences
    assert distance.max(initial=0) <= 2.01
    assert (distance > 0.01).sum() <= 0.01 * distance.size
    np.testing.assert_allclose(found["keypoints"][..., 2], expected.keypoints[..., 2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@torch.no_grad()
def test_a_file_gives_what_the_model_gives(exported, runtimes, runtime):
    model = exported[0]
    numbers = {}
    for name, images in BATCHES.items():
        batch, sizes = padded(images)
        expected = model.detect(batch, sizes)
        numbers[name] = len(expected.image)
        assert_same(runtimes[runtime](batch.numpy(), sizes.numpy()), expected)
    assert numbers["nobody"] == 0
    assert numbers["noise"] > 3
    assert numbers["three sizes"] > 3


@torch.no_grad()
def test_the_numbers_of_people_before_nms():
    model = small_model(oks_nms_thresh=1.0)
    for name in ("nobody", "1", "7", "30", "60"):
        found = model.detect(*padded(BATCHES[name]))
        assert len(found.scores) == int(name.replace("nobody", "0"))


@torch.no_grad()
def test_an_exported_program_gives_what_the_model_gives(exported):
    model, program, _ = exported
    module = program.module(check_guards=False)
    for name in ("nobody", "three sizes"):
        batch, sizes = padded(BATCHES[name])
        assert_same(module(batch, sizes), model.detect(batch, sizes))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("flip", [False, True])
@torch.no_grad()
def test_a_trace_gives_what_the_model_gives(flip):
    model = small_model()
    traced = torch.jit.trace(Detect(model, flip), padded(BATCHES["7"]), check_trace=False)
    for images in BATCHES.values():
        batch, sizes = padded(images)
        assert_same(traced(batch, sizes), model.detect(batch, sizes, flip=flip))


def test_soft_oks_nms_is_refused():
    model = small_model(soft_oks_nms=SoftOKSNMS((0.1,) * 4))
    with pytest.raises(ConfigError, match=r"TEST\.SOFT_OKS_NMS\.METHOD is 'gaussian'.*set it to ''"):
        model.check_exportable()
    small_model().check_exportable()
