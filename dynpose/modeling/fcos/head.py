"""The FCOS head: two towers shared by all levels, and three prediction layers."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import nn


class FCOSPredictions(NamedTuple):
    """Outputs of :class:`FCOSHead`, each a list over the levels.

    Attributes:
        logits (list[Tensor]): (B, classes, H, W).
        distances (list[Tensor]): (B, 4, H, W), from the location to the left, top, right and bottom side of the box, in
            strides, not negative.
        centerness (list[Tensor]): (B, 1, H, W) logits.
        box_tower (list[Tensor]): (B, C, H, W), what the box branch predicts from: per-location branches such as
            FCPose's controller (its section 3.1) read it through :class:`~dynpose.modeling.fcos.LocationConv`.
    """

    logits: list
    distances: list
    centerness: list
    box_tower: list


class FCOSHead(nn.Module):
    """Towers of 3x3 convolutions for classification and box regression, shared by all levels.

    Args:
        in_channels (int): channels of every input map.
        num_levels (int): L.
        num_classes (int): without background; 1 = person.
        num_cls_convs, num_box_convs (int): convolutions in each tower.
        norm (str): normalisation in the towers, as detectron2's ``get_norm`` names it.
        use_scale (bool): one learned factor per level on the distances.
        prior_prob (float): probability that the classification bias starts from.
    """

    def __init__(
        self,
        *,
        in_channels,
        num_levels,
        num_classes=1,
        num_cls_convs=4,
        num_box_convs=4,
        norm="GN",
        use_scale=True,
        prior_prob=0.01,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.cls_tower = _tower(in_channels, num_cls_convs, norm)
        self.box_tower = _tower(in_channels, num_box_convs, norm)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.box_distances = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(in_channels, 1, 3, padding=1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(num_levels if use_scale else 0))

        for layer in (self.cls_logits, self.box_distances, self.centerness):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_cfg(cls, cfg, in_channels):
        """Build from ``cfg.MODEL.FCOS`` for maps of ``in_channels`` channels."""
        fcos = cfg.MODEL.FCOS
        return cls(
            in_channels=in_channels,
            num_levels=len(fcos.IN_FEATURES),
            num_classes=fcos.NUM_CLASSES,
            num_cls_convs=fcos.NUM_CLS_CONVS,
            num_box_convs=fcos.NUM_BOX_CONVS,
            norm=fcos.NORM,
            use_scale=fcos.USE_SCALE,
            prior_prob=fcos.PRIOR_PROB,
        )

    def forward(self, features):
        """Predict at every location.

        Args:
            features (list[Tensor]): L maps of shape (B, in_channels, H_l, W_l).

        Returns:
            FCOSPredictions
        """
        predictions = FCOSPredictions([], [], [], [])
        for index, feature in enumerate(features):
            cls_tower = self.cls_tower(feature)
            box_tower = self.box_tower(feature)
            distances = self.box_distances(box_tower)
            if len(self.scales):
                distances = distances * self.scales[index]
            predictions.logits.append(self.cls_logits(cls_tower))
            predictions.distances.append(F.relu(distances))
            predictions.centerness.append(self.centerness(box_tower))
            predictions.box_tower.append(box_tower)
        return predictions


def _tower(channels, num_convs, norm):
    convs = [
        Conv2d(channels, channels, 3, padding=1, norm=get_norm(norm, channels), activation=F.relu)
        for _ in range(num_convs)
    ]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
    return nn.Sequential(*convs)
