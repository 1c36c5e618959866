"""Whether a model is run to record its graph."""

import torch

__all__ = ["is_exporting", "is_recording"]


def is_exporting() -> bool:
    """Whether ``torch.export`` (and with it torch.onnx's dynamo exporter) is recording the running model."""
    # torch 2.5 and older have no such function, and no exporter that needs it
    return getattr(torch.compiler, "is_exporting", bool)()


def is_recording() -> bool:
    """Whether ``torch.export`` or a TorchScript trace is recording the running model."""
    return is_exporting() or torch.jit.is_tracing()
