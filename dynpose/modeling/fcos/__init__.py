"""FCOS (Tian et al., ICCV 2019): the one-stage detector that FCPose and InsPose generate their KP-Nets from."""

from .decoding import FCOSDecoder
from .head import FCOSHead, FCOSPredictions
from .locations import LocationConv, Locations, flatten_levels
from .losses import fcos_losses
from .targets import FCOSTargets, assign_targets, sample_positives

__all__ = [
    "FCOSDecoder",
    "FCOSHead",
    "FCOSPredictions",
    "FCOSTargets",
    "LocationConv",
    "Locations",
    "assign_targets",
    "fcos_losses",
    "flatten_levels",
    "sample_positives",
]
