"""Checkpoints that can't be written: one error with the needed space, and no partial file."""

import resource

import pytest
import torch

from dynpose.checkpoint import CheckpointError
from dynpose.checkpoint.writing import write_checkpoint


@pytest.fixture
def limit_of_files():
    """Give a function that sets the most bytes that the system lets a file have."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, previous[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, previous)


def test_the_error_states_the_needed_space(limit_of_files, tmp_path):
    """A million numbers of 4 bytes in two tensors, one of which is a part of the other: 4 MB, and 0.07 MB around."""
    path = str(tmp_path / "model.pth")
    write_checkpoint(path, {"model": torch.zeros(3)})
    whole = torch.zeros(1_000_000)
    limit_of_files(1_000_000)
    message = r"model\.pth: can't be written \(File too large\): it needs 4\.1 MB, and \d+\.\d MB are free on its disk"
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(path, {"model": {"whole": whole, "part": whole[:10]}, "states": [(whole, 3)]})
    assert torch.load(path)["model"].tolist() == [0, 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"nowhere/model\.pth: can't be written \(No such file or directory\)\. An.*; make the folder",
    ):
        write_checkpoint(str(tmp_path / "nowhere/model.pth"), {})
