"""Whether a graph is being recorded: by exporters and traces, not by torch.compile, whose graph is run here."""

import pytest
import torch
from torch import nn

from dynpose.utils.exporting import is_exporting, is_recording

needs_exporters = pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="a PyTorch without exporters")


class Marked(nn.Module):
    """Adds 1 if a graph is being recorded, and 10 if an exporter records it."""

    def forward(self, x):
        return x + (1 if is_recording() else 0) + (10 if is_exporting() else 0)


def test_in_eager_mode():
    assert Marked()(torch.zeros(2)).tolist() == [0, 0]


def test_torch_compile_takes_the_eager_path():
    compiled = torch.compile(Marked(), backend="eager", fullgraph=True)
    assert compiled(torch.zeros(2)).tolist() == [0, 0]


def test_a_trace():
    assert torch.jit.trace(Marked(), (torch.zeros(2),))(torch.zeros(2)).tolist() == [1, 1]


@needs_exporters
@pytest.mark.parametrize("strict", [False, True])
def test_exporters(strict):
    exported = torch.export.export(Marked(), (torch.zeros(2),), strict=strict)
    assert exported.module()(torch.zeros(2)).tolist() == [11, 11]
    # the next call is not one
    assert not is_recording()
