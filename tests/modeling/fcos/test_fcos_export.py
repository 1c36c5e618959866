"""FCPose and InsPose as ONNX files, in ONNX Runtime and OpenVINO, against PyTorch: any size, batch and number of
people. Each model is exported once.
"""

import numpy as np
import pytest
import torch
from marked_models import MULTIPLE, ONE_LEVEL, TWO_LEVELS, marked_images, marked_model

from dynpose.export import ExportNetwork
from dynpose.export.capture import captured
from dynpose.export.onnx_file import write_onnx
from dynpose.export.running import run_onnx, run_openvino

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

RELEASED = "MODEL.INSPOSE_RELEASED."
# The time of an export grows with the number of operators: the levels of the detector, which all share, are two in one
MODELS = {
    "FCPose": ("configs/FCPose/Base-FCPose.yaml", *TWO_LEVELS, "MODEL.FCPOSE.BASIS.IN_FEATURES", ["p3", "p4"]),
    "InsPose": ("configs/InsPose/Base-InsPose.yaml", *ONE_LEVEL),
    "InsPose, released": (
        "configs/InsPose/R_50_3x_release.yaml",
        *ONE_LEVEL,
        *(f"{RELEASED}STAR_KEYPOINTS", [0, 1, 2, 3, 0, 1, 2, 3, 0]),
        *(f"{RELEASED}REGRESSION_CONVS_DIM", 16, f"{RELEASED}NUM_REGRESSION_CONVS", 1),
        *(f"{RELEASED}FEATURE_CONVS_DIM", 16, f"{RELEASED}NUM_FEATURE_CONVS", 1),
        *(f"{RELEASED}AUX_CONVS_DIM", 16, f"{RELEASED}NUM_AUX_CONVS", 1),
    ),
}
# marks of each image, height, width
BATCHES = [
    ([0], 64, 64),
    ([1], 96, 64),
    ([7], 128, 160),
    ([60], 256, 320),
    ([7, 0, 60], 256, 192),
    ([1, 1], 64, 256),
]
MAX_PEOPLE = 80


@pytest.fixture(scope="session", params=MODELS)
def network(request):
    return ExportNetwork(marked_model(*MODELS[request.param]), MAX_PEOPLE).eval()


@pytest.fixture(scope="session")
def onnx_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("marked") / "pose.onnx"
    with torch.no_grad():
        write_onnx(captured(network, marked_images([3, 2], 96, 128), MULTIPLE), path, "{}")
    return path


@pytest.fixture(params=["onnxruntime", "openvino"])
def run(request, onnx_file):
    pytest.importorskip(request.param)
    return {"onnxruntime": run_onnx, "openvino": run_openvino}[request.param](onnx_file, "float32")


def test_the_file_finds_the_same_people(network, run):
    most = 0
    for counts, height, width in BATCHES:
        images, sizes = marked_images(counts, height, width)
        with torch.no_grad():
            boxes, scores, classes, keypoints, found = network(images, sizes)
        file_boxes, file_scores, file_classes, file_keypoints, file_found = run(images, sizes)
        assert file_found.tolist() == found.tolist(), (counts, height, width)
        assert [bool(count) for count in counts] == [bool(count) for count in found]
        np.testing.assert_allclose(file_scores, scores, atol=1e-4, rtol=0)
        np.testing.assert_allclose(file_boxes, boxes, atol=0.01, rtol=0)
        np.testing.assert_allclose(file_keypoints[..., :2], keypoints[..., :2], atol=0.01, rtol=0)
        np.testing.assert_allclose(file_keypoints[..., 2], keypoints[..., 2], atol=1e-3, rtol=0)
        assert torch.equal(file_classes, classes)
        most = max(most, int(found.max()))
    assert most >= 7
