"""FCPose (Mao et al., CVPR 2021)."""

from . import method  # noqa: F401  registers the method
from .basis import AuxHeatmaps, BasisBranch
from .fcpose import FCPose, FCPoseOptions
from .refinement import DeconvRefinement, InstanceOffsets, PeakRefinement, SharedOffsets

__all__ = [
    "AuxHeatmaps",
    "BasisBranch",
    "DeconvRefinement",
    "FCPose",
    "FCPoseOptions",
    "InstanceOffsets",
    "PeakRefinement",
    "SharedOffsets",
]
