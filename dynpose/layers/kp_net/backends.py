"""The implementations of the KP-Net operator, and which of them runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dynpose.layers.triton_support import triton, warn_of_fallback, why_not_triton

from . import reference
from .spec import KPNetSpec

if triton is None:
    fused = None
else:
    from . import fused


@dataclass(frozen=True)
class Backend:
    """One implementation of the three entry points.

    Attributes:
        heatmaps, peaks, cross_entropy: take the arguments of ``kp_net_heatmaps``, ``kp_net_peaks`` and
            ``kp_net_cross_entropy`` by position, checked, without ``backend``.
        why_not: tells for a feature map (its device and dtype) and a spec why this implementation cannot run; None
            where it can.
        devices: types of the devices on which "auto" chooses it; None for all.
    """

    heatmaps: Callable
    peaks: Callable
    cross_entropy: Callable
    why_not: Callable[[torch.Tensor, KPNetSpec], str | None] = lambda features, spec: None
    devices: tuple[str, ...] | None = None


# By name, the preferred first. The last one runs everywhere.
BACKENDS: dict[str, Backend] = {
    "triton": Backend(
        heatmaps=fused and fused.fused_kp_net_heatmaps,
        peaks=fused and fused.fused_kp_net_peaks,
        cross_entropy=fused and fused.fused_kp_net_cross_entropy,
        why_not=lambda features, spec: why_not_triton(features) or fused.why_not_fused(features, spec),
        devices=("cuda",),
    ),
    "torch": Backend(
        heatmaps=reference._kp_net_heatmaps,
        peaks=reference._kp_net_peaks,
        cross_entropy=reference._kp_net_cross_entropy,
    ),
}


def select_backend(name: str, features: torch.Tensor, spec: KPNetSpec) -> Backend:
    """Find the backend to run on a feature map.

    Where the one that is asked for (with "auto", the one that is meant for the device) cannot run, the next one does,
    and a warning says so once.

    Args:
        name: a key of ``BACKENDS``, or "auto" for the first of them that is meant for the device.
        features: (B, C, H, W).
        spec: of the KP-Nets.

    Raises:
        ValueError: if no backend has that name.
    """
    if name != "auto" and name not in BACKENDS:
        known = ", ".join(repr(known) for known in ("auto", *BACKENDS))
        raise ValueError(f"backend: expected one of {known}, got {name!r}")
    asked = False
    for known, backend in BACKENDS.items():
        asked = asked or name == known
        meant = name == "auto" and (backend.devices is None or features.device.type in backend.devices)
        if asked or meant:
            reason = backend.why_not(features, spec)
            if reason is None:
                return backend
            warn_of_fallback("The KP-Net operator", reason)
    raise AssertionError("the last backend runs everywhere")
