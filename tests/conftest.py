"""What several tests need: the external test data, one thread, GPU tests skipped without a GPU."""

import os
from pathlib import Path

import pytest
import torch

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
