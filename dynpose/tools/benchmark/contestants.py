"""The ways to compute a thing that are compared, and whether their results are the same."""

from __future__ import annotations

from typing import NamedTuple

import torch

from dynpose.layers import triton_support

GROUPED, REFERENCE, FUSED = "grouped", "reference", "fused"
# of those that run the operator
BACKENDS = {REFERENCE: "torch", FUSED: "triton"}


def why_not(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Tell why a contestant is not run; "" where it is.

    Kernels in Triton's interpreter are never run: their times would say nothing.
    """
    if name != FUSED:
        return ""
    if triton_support.interprets():
        return "not run: Triton interprets its kernels here, it does not compile them"
    reason = triton_support.triton_unavailable_reason(torch.empty(0, dtype=dtype, device=device))
    return f"not run: {reason}" if reason else ""


class Result(NamedTuple):
    """What one call of a contestant gives.

    Attributes:
        values: by name, any shapes.
        gradients: by name; empty in inference.
        indices: (N, K) cells, in inference.
    """

    values: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    indices: torch.Tensor | None = None


class Tolerance(NamedTuple):
    """How far results may differ.

    Attributes:
        values: the largest difference, as a part of the largest value.
        gradients: the Euclidean norm of the difference, as a part of the norm of the gradient. Where an input of a
            ReLU is so near to zero that rounding changes its sign, a cell's gradient changes by a finite step: a few
            numbers may differ by a large part of the largest one.
    """

    values: float
    gradients: float

    @classmethod
    def of(cls, dtype: torch.dtype, tf32: bool) -> Tolerance:
        """Choose by the precision of the factors: bfloat16 has 8 bits, TF32 and float16 11, float32 24."""
        if dtype == torch.bfloat16:
            return cls(values=3e-2, gradients=0.15)
        if dtype == torch.float16 or tf32:
            return cls(values=1e-2, gradients=0.15)
        return cls(values=1e-3, gradients=1e-3)


class Disagreement(Exception):
    """Two contestants compute different things: their times must not be compared."""


def check_values(name: str, expected: torch.Tensor, actual: torch.Tensor, tolerance: float):
    """Compare the largest difference with the largest value.

    Raises:
        Disagreement: if shapes differ, or the numbers more than ``tolerance`` (a part of the largest value).
    """
    _check_shape(name, expected, actual)
    _check_error(name, *((x.double().abs().amax()) for x in (actual.double() - expected, expected)), tolerance)


def check_gradient(name: str, expected: torch.Tensor, actual: torch.Tensor, tolerance: float):
    """Compare the norm of the difference with the norm of the gradient.

    Raises:
        Disagreement: if shapes differ, or the numbers more than ``tolerance`` (a part of the norm).
    """
    _check_shape(name, expected, actual)
    _check_error(name, *(x.double().norm() for x in (actual.double() - expected, expected)), tolerance)


def _check_shape(name, expected, actual):
    if expected.shape != actual.shape:
        raise Disagreement(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")


def _check_error(name, difference, size, tolerance):
    # written so that a NaN does not pass
    if not difference <= tolerance * size:
        relative = (difference / size).item()
        raise Disagreement(f"{name}: relative difference {relative:.1e}, at most {tolerance:.1e} expected")
