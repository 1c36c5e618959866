"""The head that generates keypoint networks (KP-Nets) for FCPose and InsPose, with its config keys and FLOPs."""

from dynpose.methods import register_config

from .config import add_kp_net_config
from .flops import FLOPS_BILINEAR, count_cells, count_kp_net_flops
from .head import KPNetHead, kp_net_spec
from .intermediates import heatmap_intermediates, offset_intermediates

__all__ = [
    "FLOPS_BILINEAR",
    "KPNetHead",
    "count_cells",
    "count_kp_net_flops",
    "heatmap_intermediates",
    "kp_net_spec",
    "offset_intermediates",
]

register_config(add_kp_net_config)
