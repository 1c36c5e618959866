"""Whether a requested device is available."""

import torch

from dynpose.config import ConfigError

__all__ = ["check_device", "missing_device"]


def missing_device(name: str) -> str | None:
    """Return the reason why a device can't be used.

    Args:
        name (str): in PyTorch's notation: "cpu", "cuda", "cuda:1", "mps".

    Returns:
        str | None: the reason; None if the device is available.
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


def check_device(name: str, source: str, remedy: str) -> None:
    """Refuse a device that can't be used.

    Args:
        name (str): see :func:`missing_device`.
        source (str): the config key or option that names it, for the message.
        remedy (str): for the message.

    Raises:
        ConfigError
    """
    problem = missing_device(name)
    if problem is not None:
        raise ConfigError(f"{source} {name!r}: {problem}; {remedy}")
