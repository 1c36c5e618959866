"""FCPose (Mao et al., CVPR 2021)."""

from .fcpose import FCPose

__all__ = ["FCPose"]
