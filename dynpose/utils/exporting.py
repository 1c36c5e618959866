"""Models that are run to record their graph."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_exporting", "is_recording", "pad_rows", "without_autocast"]


def is_exporting() -> bool:
    """Whether ``torch.export`` (and with it torch.onnx's dynamo exporter) is recording the running model."""
    # not torch.compiler.is_exporting(), which is also true in torch.compile; torch 2.6 and older have no such flag, and
    # no exporter that needs it
    return getattr(torch.compiler, "_is_exporting_flag", False)


def is_recording() -> bool:
    """Whether ``torch.export`` or a TorchScript trace is recording the running model."""
    return is_exporting() or torch.jit.is_tracing()


def pad_rows(values: Tensor, size: int) -> Tensor:
    """Append zeros to (N, ...), up to (``size``, ...).

    ``torch.export`` accepts no tensor whose size depends on values, such as the number of people, in a loop.
    """
    rows = torch.arange(values.shape[0], device=values.device)
    return values.new_zeros(size, *values.shape[1:]).index_put((rows,), values)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Switch autocast off for a device, where it is on.

    ``torch.export`` records the context as a separate graph, which costs seconds of an export even where it changes
    nothing.
    """
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
