"""The KP-Net operator: a small generated network per instance, run over the feature map of its image."""

from .nets import KPNets
from .operator import kp_net_cross_entropy, kp_net_heatmaps, kp_net_peaks
from .spec import KPNetPeaks, KPNetSpec

__all__ = ["KPNetPeaks", "KPNetSpec", "KPNets", "kp_net_cross_entropy", "kp_net_heatmaps", "kp_net_peaks"]
