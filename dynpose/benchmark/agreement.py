"""Checking that implementations compute the same numbers, before their times are compared."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Result(NamedTuple):
    """The result of one call of an implementation.

    Attributes:
        values: by name, any shapes.
        gradients: by name; empty in inference.
        indices: (N, K) cells, in inference.
    """

    values: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    indices: torch.Tensor | None = None


class Tolerance(NamedTuple):
    """The tolerated differences of results.

    Attributes:
        values: the largest difference, relative to the largest value.
        gradients: the Euclidean norm of the difference, relative to the norm of the gradient. If rounding changes the
            sign of a ReLU's input, the cell's gradient jumps: a few numbers may differ by a large fraction of the
            largest one.
    """

    values: float
    gradients: float

    @classmethod
    def of(cls, dtype: torch.dtype, tf32: bool) -> Tolerance:
        """Choose by the significand of the factors: 8 bits in bfloat16, 11 in TF32 and float16, 24 in float32."""
        if dtype == torch.bfloat16:
            return cls(values=3e-2, gradients=0.15)
        if dtype == torch.float16 or tf32:
            return cls(values=1e-2, gradients=0.15)
        return cls(values=1e-3, gradients=1e-3)


class Disagreement(Exception):
    """Two implementations give different results: their times must not be compared."""


def check_values(name: str, expected: torch.Tensor, actual: torch.Tensor, tolerance: float) -> None:
    """Compare the largest difference with the largest value.

    Raises:
        Disagreement: shapes differ, or numbers by more than ``tolerance`` (relative to the largest value).
    """
    _check(name, expected, actual, lambda x: x.double().abs().amax(), tolerance)


def check_gradients(expected: Result, actual: Result, tolerance: float) -> None:
    """Compare the norm of the difference with the norm of each gradient.

    Raises:
        Disagreement: shapes differ, or numbers by more than ``tolerance`` (relative to the norm).
    """
    for name, gradient in expected.gradients.items():
        _check(name, gradient, actual.gradients[name], lambda x: x.double().norm(), tolerance)


def _check(name, expected, actual, size_of, tolerance):
    if expected.shape != actual.shape:
        raise Disagreement(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    difference, size = size_of(actual.double() - expected), size_of(expected)
    # "not <=" so that NaN fails
    if not difference <= tolerance * size:
        relative = (difference / size).item()
        raise Disagreement(f"{name}: relative difference {relative:.1e}, at most {tolerance:.1e} expected")
