"""FCPose (Mao et al., CVPR 2021)."""

from .fcpose import FCPose, FCPoseOptions

__all__ = ["FCPose", "FCPoseOptions"]
