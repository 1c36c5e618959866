"""The head that generates keypoint networks (KP-Nets) for FCPose and InsPose, with its config keys and FLOPs."""

from dynpose.methods import register_config

from .config import add_kp_net_config
from .flops import FLOPS_BILINEAR, count_cells, count_kp_net_flops
from .head import KPNetHead, kp_net_spec

__all__ = ["FLOPS_BILINEAR", "KPNetHead", "count_cells", "count_kp_net_flops", "kp_net_spec"]

register_config(add_kp_net_config)
