"""Operators that do not depend on a method."""

from .backends import Implementation, register_backend
from .kp_net import KPNetPeaks, KPNets, KPNetSpec, kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from .map_losses import expected_distance, upsampled_cross_entropy

__all__ = [
    "Implementation",
    "KPNetPeaks",
    "KPNetSpec",
    "KPNets",
    "expected_distance",
    "kp_net_cross_entropy",
    "kp_net_heatmaps",
    "kp_net_peaks",
    "register_backend",
    "upsampled_cross_entropy",
]
