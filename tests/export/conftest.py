"""A toy run, and its exported files: each format is exported once for all tests."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peak_pose import bright_cells, peak_config
from PIL import Image

from dynpose.checkpoint import PoseCheckpointer
from dynpose.modeling.build import build_model
from dynpose.tools.cli import main


@pytest.fixture(scope="session")
def peak_model():
    """The toy model, in eval mode."""
    torch.manual_seed(0)
    return build_model(peak_config()).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def peak_run(tmp_path_factory, peak_model):
    """``config``, ``weights``, and ``images``: a folder of pictures of 3, 1 and 0 people."""
    folder = tmp_path_factory.mktemp("peak")
    (folder / "config.yaml").write_text(peak_config().dump())
    PoseCheckpointer(peak_model, str(folder)).save("model_final")
    images = folder / "images"
    images.mkdir()
    for name, cells in (("a", [(1, 1), (5, 7), (3, 4)]), ("b", [(4, 3)]), ("c", [])):
        Image.fromarray(bright_cells(64, 80, cells)).save(images / f"{name}.png")
    return SimpleNamespace(
        folder=folder, config=str(folder / "config.yaml"), weights=str(folder / "model_final.pth"), images=str(images)
    )


@pytest.fixture(scope="session")
def export(peak_run):
    """(output, *arguments) -> exit code of `dynpose export` of the toy model."""

    def run(output, *arguments):
        given = ("--weights", peak_run.weights, "--output", str(output), "--max-people", "8", *map(str, arguments))
        return main(["export", *given])

    return run


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory, peak_run, export):
    """The toy model as a float32 ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "pose.onnx"
    assert export(path, "--images", peak_run.images) == 0
    return path


@pytest.fixture(scope="session")
def scene():
    """(height, width, cells) -> images (1, 3, H, W) and image sizes (1, 2) of the toy's picture, padded by 32."""

    @functools.cache
    def make(height, width, cells):
        padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), dtype=np.float32)
        padded[0, :, :height, :width] = bright_cells(height, width, cells).transpose(2, 0, 1)
        return torch.from_numpy(padded), torch.tensor([[height, width]])

    return make
