"""Meta-architectures and backbones; importing this package registers them with detectron2 and dynpose.

It is the only module that imports every method.
"""

from . import backbone, fcos
from .cid import CID
from .fcpose import FCPose
from .inspose import InsPose, InsPoseReleased
from .querypose import QueryPose

__all__ = ["CID", "FCPose", "InsPose", "InsPoseReleased", "QueryPose", "backbone", "fcos"]
