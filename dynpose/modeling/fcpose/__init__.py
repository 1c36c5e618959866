"""FCPose (Mao et al., CVPR 2021)."""

from . import method  # noqa: F401  registers the method
from .fcpose import FCPose, FCPoseOptions

__all__ = ["FCPose", "FCPoseOptions"]
