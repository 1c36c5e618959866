"""What several tests need: the external test data, one thread, GPU tests skipped without a GPU."""

import os
import shutil
from pathlib import Path

# Before anything imports Triton: without a GPU driver its kernels are tested in the interpreter.
if not shutil.which("nvidia-smi"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    import interpreter_mending  # noqa: F401

# small tensors: a second thread costs more in waiting than it gives
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data():
    """Folder with data/ (real annotated images) and reference/ (numeric fixtures), which are not in the repository."""
    folder = os.environ.get("DYNPOSE_TEST_DATA")
    if not folder:
        pytest.skip("DYNPOSE_TEST_DATA is not set")
    if not Path(folder, "reference").is_dir():
        pytest.fail(f"DYNPOSE_TEST_DATA={folder} holds no reference/")
    return Path(folder)


def pytest_collection_modifyitems(items):
    """Skip the GPU tests where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
