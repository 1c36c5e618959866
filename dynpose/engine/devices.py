"""Whether the device that somebody has asked for is there."""

import torch

from dynpose.config import ConfigError

__all__ = ["check_device", "missing_device"]


def missing_device(name):
    """Find out why a device can't be used.

    Args:
        name (str): as PyTorch has it: "cpu", "cuda", "cuda:1", "mps".

    Returns:
        str | None: what PyTorch does not find; None where the device is there.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        return "PyTorch knows no such device"
    module = torch.backends.mps if device.type == "mps" else getattr(torch, device.type, None)
    if not getattr(module, "is_available", lambda: False)():
        kind = "GPU" if device.type == "cuda" else f"{device.type.upper()} device"
        return f"PyTorch finds no {kind} on this machine"
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return f"PyTorch finds {torch.cuda.device_count()} on this machine, counted from 0"
    return None


def check_device(name, source, remedy):
    """Refuse a device that can't be used.

    Args:
        name (str): see :func:`missing_device`.
        source (str): where it was asked for, for the message: a config key or an option.
        remedy (str): what to do, for the message.

    Raises:
        ConfigError
    """
    problem = missing_device(name)
    if problem is not None:
        raise ConfigError(f"{source} {name!r}: {problem}; {remedy}")
