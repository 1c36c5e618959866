"""Meta-architectures and backbones; importing this package registers them with detectron2 and dynpose.

This is the one place that imports every method.
"""

from dynpose.methods import register_config

from . import backbone, fcos
from .cid import CID
from .fcpose import FCPose
from .inspose import InsPose, InsPoseReleased
from .kp_net_config import add_kp_net_config
from .querypose import QueryPose

__all__ = ["CID", "FCPose", "InsPose", "InsPoseReleased", "QueryPose", "backbone", "fcos"]

register_config(add_kp_net_config)
