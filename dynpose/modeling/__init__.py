"""Meta-architectures and backbones; importing this package registers them with detectron2."""

from . import backbone, fcos
from .fcpose import FCPose

__all__ = ["FCPose", "backbone", "fcos"]
