"""Operators with no opinion about a method."""

from .kp_net import KPNetPeaks, KPNetSpec, kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from .map_losses import expected_distance, upsampled_cross_entropy

__all__ = [
    "KPNetPeaks",
    "KPNetSpec",
    "expected_distance",
    "kp_net_cross_entropy",
    "kp_net_heatmaps",
    "kp_net_peaks",
    "upsampled_cross_entropy",
]
