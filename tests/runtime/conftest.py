"""Exported files of a small network, and a photo."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from exported_files import write_exported, write_openvino
from PIL import Image

from dynpose.runtime import Pose


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The path of an .onnx file."""
    return write_exported(tmp_path_factory.mktemp("exported") / "pose.onnx")


@pytest.fixture(scope="session")
def openvino_file(tmp_path_factory):
    """The path of OpenVINO's .xml of the same network."""
    pytest.importorskip("openvino")
    return write_openvino(tmp_path_factory.mktemp("openvino"))


@pytest.fixture(scope="session")
def pose(exported):
    return Pose(exported)


@pytest.fixture(scope="session")
def photo():
    """(60, 80, 3) uint8, BGR."""
    return np.random.default_rng(0).integers(1, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def photo_file(photo, tmp_path):
    Image.fromarray(photo[:, :, ::-1]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"
