"""Files of PyTorch: torch.export's programs and TorchScript."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .metadata import KEY
from .network import People
from .quiet import quiet

__all__ = ["LowerPrecision", "write_torch_export", "write_torchscript"]


class LowerPrecision(nn.Module):
    """Runs a network under autocast, for a graph that computes in a lower precision.

    Args:
        network (nn.Module): see :class:`~dynpose.export.network.ExportNetwork`.
        dtype (torch.dtype): of the dense layers; the models decode in float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, images: Tensor, image_sizes: Tensor) -> People:
        """See :class:`~dynpose.export.network.ExportNetwork`."""
        with torch.autocast(images.device.type, self.dtype):
            return self.network(images, image_sizes)


def write_torch_export(program: torch.export.ExportedProgram, path: Path, metadata: str) -> None:
    """Write a .pt2 file, with the metadata as its extra file ``dynpose``.

    Args:
        program: of :func:`~dynpose.export.capture.captured`.
        path: the file.
        metadata: JSON.
    """
    with quiet():
        torch.export.save(program, path, extra_files={KEY: metadata})


def write_torchscript(script: torch.jit.ScriptModule, path: Path, metadata: str) -> None:
    """Write a TorchScript file, with the metadata as its extra file ``dynpose``.

    Args:
        script: of :func:`~dynpose.export.capture.traced`.
        path: the file.
        metadata: JSON.
    """
    with quiet():
        torch.jit.save(script, str(path), _extra_files={KEY: metadata})
