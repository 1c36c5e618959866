"""The KP-Net operator: a small generated network per person, run over the feature map of its image."""

from .operator import kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from .spec import KPNetPeaks, KPNetSpec

__all__ = ["KPNetPeaks", "KPNetSpec", "kp_net_cross_entropy", "kp_net_heatmaps", "kp_net_peaks"]
