"""QueryPose (Xiao et al., NeurIPS 2022)."""

from . import method  # noqa: F401  registers the method
from .box_decoder import BoxStage
from .flow import RealNVP
from .keypoint_decoder import KeypointStage
from .parts import divide_into_parts
from .querypose import QueryPose, QueryPoseOptions, RoIPooling

__all__ = ["BoxStage", "KeypointStage", "QueryPose", "QueryPoseOptions", "RealNVP", "RoIPooling", "divide_into_parts"]
