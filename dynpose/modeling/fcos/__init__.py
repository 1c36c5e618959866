"""FCOS (Tian et al., ICCV 2019): the one-stage detector whose locations generate FCPose's and InsPose's KP-Nets."""

from dynpose.methods import register_config

from .config import add_fcos_config
from .decoding import Candidates, FCOSDecoder
from .detector import FCOSDetector
from .head import FCOSHead, FCOSPredictions, conv_tower, pyramid_channels
from .locations import LocationConv, Locations, flatten_levels
from .losses import fcos_losses
from .targets import FCOSTargets, assign_targets, sample_positives

__all__ = [
    "Candidates",
    "FCOSDecoder",
    "FCOSDetector",
    "FCOSHead",
    "FCOSPredictions",
    "FCOSTargets",
    "LocationConv",
    "Locations",
    "assign_targets",
    "conv_tower",
    "fcos_losses",
    "flatten_levels",
    "pyramid_channels",
    "sample_positives",
]

register_config(add_fcos_config)
