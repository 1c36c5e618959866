"""FCOS (Tian et al., ICCV 2019): the one-stage detector that FCPose and InsPose generate their KP-Nets from."""

from dynpose.methods import register_config

from .config import add_fcos_config
from .decoding import Candidates, FCOSDecoder, chosen_locations, give_keypoints
from .head import FCOSHead, FCOSPredictions, conv_tower, pyramid_channels
from .locations import LocationConv, Locations, flatten_levels
from .losses import fcos_loss_arguments, fcos_losses
from .targets import FCOSTargets, assign_targets, sample_positives

__all__ = [
    "Candidates",
    "FCOSDecoder",
    "FCOSHead",
    "FCOSPredictions",
    "FCOSTargets",
    "LocationConv",
    "Locations",
    "assign_targets",
    "chosen_locations",
    "conv_tower",
    "fcos_loss_arguments",
    "fcos_losses",
    "flatten_levels",
    "give_keypoints",
    "pyramid_channels",
    "sample_positives",
]

register_config(add_fcos_config)
