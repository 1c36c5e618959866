"""Meta-architectures and backbones; importing this package registers them with detectron2."""

from . import backbone, fcos
from .fcpose import FCPose
from .inspose import InsPose, InsPoseReleased

__all__ = ["FCPose", "InsPose", "InsPoseReleased", "backbone", "fcos"]
