"""Operators with no opinion about a method."""

from .kp_net import KPNetPeaks, KPNetSpec, kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks

__all__ = ["KPNetPeaks", "KPNetSpec", "kp_net_cross_entropy", "kp_net_heatmaps", "kp_net_peaks"]
