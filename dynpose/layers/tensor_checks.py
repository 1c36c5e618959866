"""Checks of operator arguments: shapes, devices, dtypes and, on the CPU, index values.

Index values are read only on the CPU and outside ``torch.compile``: reading them synchronises with a CUDA device and
breaks the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def check_floating_point(name: str, tensor: torch.Tensor) -> None:
    """Check that a tensor has a floating-point dtype.

    Raises:
        TypeError: if it is not.
    """
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, got {tensor.dtype}")


def check_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int],
    like: tuple[str, torch.Tensor],
    dtype: torch.dtype | None = None,
) -> None:
    """Check a tensor's shape, device and dtype.

    Args:
        name: name of the argument, for the message.
        tensor: the argument.
        shape: the expected shape.
        like: name and value of the argument whose device it must share.
        dtype: the expected dtype; None for any floating-point dtype.

    Raises:
        ValueError: if the shape or device differs.
        TypeError: if the dtype differs.
    """
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(tensor.shape)}")
    like_name, like_tensor = like
    if tensor.device != like_tensor.device:
        raise ValueError(f"{name}: expected device {like_tensor.device} as for {like_name}, got {tensor.device}")
    if dtype is None:
        check_floating_point(name, tensor)
    elif tensor.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {tensor.dtype}")


def check_below(name: str, index: torch.Tensor, letters: str, limit: int) -> None:
    """Check that index values are below a limit, which the message calls ``letters``.

    Raises:
        ValueError: if one is not, where values can be read.
    """
    if _can_read(index) and index.max() >= limit:
        raise ValueError(f"{name}: expected values below {letters} = {limit}, got {int(index.max())}")


def check_index(name: str, index: torch.Tensor, letters: str, limit: int) -> None:
    """Check that index values are in [0, limit).

    Raises:
        ValueError: if one is not, where values can be read.
    """
    check_below(name, index, letters, limit)
    if _can_read(index) and index.min() < 0:
        raise ValueError(f"{name}: expected no negative value, got {int(index.min())}")


def check_positive_int(name: str, value: int) -> None:
    """Check that a number is an int above 0.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive int, got {value!r}")


def _can_read(index):
    return index.device.type == "cpu" and index.numel() > 0 and not torch.compiler.is_compiling()
