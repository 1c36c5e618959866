"""The implementations of the KP-Net operator, and which of them runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch

from . import reference


@dataclass(frozen=True)
class Backend:
    """One implementation of the three entry points.

    Attributes:
        heatmaps, peaks, cross_entropy: take the arguments of ``kp_net_heatmaps``, ``kp_net_peaks`` and
            ``kp_net_cross_entropy`` by position, checked, without ``backend``.
        available: tells for a feature map (its device and dtype) whether this implementation can run on it.
    """

    heatmaps: Callable
    peaks: Callable
    cross_entropy: Callable
    available: Callable[[torch.Tensor], bool]


# By name, the preferred first: "auto" takes the first that is available.
BACKENDS: dict[str, Backend] = {
    "torch": Backend(
        heatmaps=reference._kp_net_heatmaps,
        peaks=reference._kp_net_peaks,
        cross_entropy=reference._kp_net_cross_entropy,
        available=lambda features: True,
    ),
}


def select_backend(name: str, features: torch.Tensor) -> Backend:
    """Find the backend to run on a feature map.

    Args:
        name: a key of ``BACKENDS``, or "auto" for the first of them that is available.
        features: (B, C, H, W).

    Raises:
        ValueError: if no backend has that name, or the one that does cannot run on ``features``.
    """
    if name == "auto":
        return next(backend for backend in BACKENDS.values() if backend.available(features))
    if name not in BACKENDS:
        known = ", ".join(repr(known) for known in ("auto", *BACKENDS))
        raise ValueError(f"backend: expected one of {known}, got {name!r}")
    if not BACKENDS[name].available(features):
        raise ValueError(f"backend: {name!r} cannot run on {features.dtype} features on {features.device}; use 'auto'")
    return BACKENDS[name]
