"""The FCOS head: two towers shared by all levels, and up to three prediction layers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from dynpose.config import (
    ConfigError,
    check_at_least_one,
    check_at_most_1,
    check_between_0_and_1,
    check_focal_alpha,
    check_from_0_to_1,
    check_increasing,
    check_norm,
    check_not_negative,
)


class FCOSPredictions(NamedTuple):
    """Outputs of :class:`FCOSHead`, each a list over the levels.

    Attributes:
        logits: (B, classes, H, W).
        distances: (B, 4, H, W), from the location to the left, top, right and bottom side of the box, in
            strides, non-negative; empty for a head without boxes.
        centerness: (B, 1, H, W) logits; empty for a head without centre-ness.
        box_tower: (B, C, H, W), the features of the box branch, also for a head without boxes.
            Per-location branches such as the controllers of FCPose (its section 3.1) and InsPose (its section 3.2) read
            them through :class:`~dynpose.modeling.fcos.LocationConv`.
    """

    logits: list[Tensor]
    distances: list[Tensor]
    centerness: list[Tensor]
    box_tower: list[Tensor]


class FCOSHead(nn.Module):
    """Towers of 3x3 convolutions for classification and box regression, shared by all levels.

    InsPose has no boxes by default: its second tower is only the controller's input.

    Args:
        in_channels: channels of every input map.
        num_levels: L.
        num_classes: without background; 1 = person.
        num_cls_convs, num_box_convs: convolutions in each tower.
        norm: normalisation in the towers, a name of detectron2's ``get_norm``.
        use_scale: one learned factor per level on the distances.
        prior_prob: initial probability that sets the classification bias.
        with_boxes: regress boxes.
        with_centerness: predict centre-ness; only with boxes.
        tower_std: standard deviation of the towers' initial weights; 0 = He initialisation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_levels: int,
        num_classes: int = 1,
        num_cls_convs: int = 4,
        num_box_convs: int = 4,
        norm: str = "GN",
        use_scale: bool = True,
        prior_prob: float = 0.01,
        with_boxes: bool = True,
        with_centerness: bool = True,
        tower_std: float = 0.0,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.cls_tower = conv_tower(in_channels, in_channels, num_cls_convs, norm, tower_std)
        self.box_tower = conv_tower(in_channels, in_channels, num_box_convs, norm, tower_std)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.box_distances = nn.Conv2d(in_channels, 4, 3, padding=1) if with_boxes else None
        self.centerness = nn.Conv2d(in_channels, 1, 3, padding=1) if with_boxes and with_centerness else None
        num_scales = num_levels if with_boxes and use_scale else 0
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(num_scales))

        for layer in filter(None, (self.cls_logits, self.box_distances, self.centerness)):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.constant_(self.cls_logits.get_parameter("bias"), -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        in_channels: int,
        *,
        with_boxes: bool = True,
        with_centerness: bool = True,
        tower_std: float = 0.0,
    ) -> FCOSHead:
        """Build from ``cfg.MODEL.FCOS``.

        Args:
            cfg: the config.
            in_channels: channels of every input map.
            with_boxes, with_centerness, tower_std: see :class:`FCOSHead`; they depend on the method.
        """
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
            with_boxes=with_boxes,
            with_centerness=with_centerness,
            tower_std=tower_std,
        )

    def forward(self, features: list[Tensor]) -> FCOSPredictions:
        """Predict at every location.

        Args:
            features: L maps of shape (B, in_channels, H_l, W_l).
        """
        predictions = FCOSPredictions([], [], [], [])
        for index, feature in enumerate(features):
            cls_tower = self.cls_tower(feature)
            box_tower = self.box_tower(feature)
            predictions.logits.append(self.cls_logits(cls_tower))
            predictions.box_tower.append(box_tower)
            if self.box_distances is not None:
                distances = self.box_distances(box_tower)
                if len(self.scales):
                    distances = distances * self.scales[index]
                predictions.distances.append(F.relu(distances))
            if self.centerness is not None:
                predictions.centerness.append(self.centerness(box_tower))
        return predictions


def conv_tower(in_channels: int, channels: int, num_convs: int, norm: str, std: float = 0.0) -> nn.Sequential:
    """3x3 convolutions, each with normalisation and ReLU.

    Args:
        in_channels: channels of the input.
        channels: channels of every output.
        num_convs: number of convolutions.
        norm: a name of detectron2's ``get_norm``.
        std: standard deviation of the initial weights; 0 = He initialisation.
    """
    convs = [
        Conv2d(
            in_channels if i == 0 else channels,
            channels,
            3,
            padding=1,
            norm=get_norm(norm, channels),
            activation=F.relu,
        )
        for i in range(num_convs)
    ]
    for conv in convs:
        if std:
            nn.init.normal_(conv.weight, std=std)
        else:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
    return nn.Sequential(*convs)


def pyramid_channels(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> int:
    """Check ``cfg.MODEL.FCOS`` against the backbone's maps and return their common number of channels.

    Args:
        cfg: the config.
        shapes: of the backbone's outputs.

    Raises:
        ConfigError: if a value is out of range, a level is missing or out of order, or the levels differ in channels.
    """
    _check_ranges(cfg)
    fcos = cfg.MODEL.FCOS
    if not fcos.IN_FEATURES:
        raise ConfigError(f"MODEL.FCOS.IN_FEATURES must name one or more of {', '.join(shapes)}, got none")
    missing = [name for name in fcos.IN_FEATURES if name not in shapes]
    if missing:
        raise ConfigError(
            f"MODEL.FCOS.IN_FEATURES {fcos.IN_FEATURES}: the backbone provides {', '.join(shapes)}, but not "
            f"{', '.join(missing)}; change IN_FEATURES or MODEL.BACKBONE.NAME"
        )
    strides = [shapes[name].stride for name in fcos.IN_FEATURES]
    if any(second <= first for first, second in zip(strides, strides[1:])):
        raise ConfigError(
            f"MODEL.FCOS.IN_FEATURES {fcos.IN_FEATURES} must be in the order of increasing strides, got {strides}"
        )
    channels = [shapes[name].channels for name in fcos.IN_FEATURES]
    if len(set(channels)) != 1:
        raise ConfigError(
            f"MODEL.FCOS.IN_FEATURES {fcos.IN_FEATURES} must have the same number of channels, got {channels}"
        )
    check_norm(cfg, "MODEL.FCOS.NORM", channels[0])
    return channels[0]


def _check_ranges(cfg):
    check_at_least_one(cfg, "MODEL.FCOS.NUM_CLASSES", "MODEL.FCOS.PRE_NMS_TOPK_TEST", "MODEL.FCOS.POST_NMS_TOPK_TEST")
    check_not_negative(cfg, "MODEL.FCOS.NUM_CLS_CONVS", "MODEL.FCOS.NUM_BOX_CONVS", "MODEL.FCOS.CENTER_SAMPLING_RADIUS")
    check_not_negative(cfg, "MODEL.FCOS.FOCAL_LOSS_GAMMA", "MODEL.FCOS.GIOU_SMOOTH")
    check_focal_alpha(cfg, "MODEL.FCOS.FOCAL_LOSS_ALPHA")
    check_at_most_1(cfg, "MODEL.FCOS.SCORE_THRESH_TEST")
    check_from_0_to_1(cfg, "MODEL.FCOS.NMS_THRESH_TEST")
    check_between_0_and_1(cfg, "MODEL.FCOS.PRIOR_PROB")
    check_increasing(cfg, "MODEL.FCOS.SIZES_OF_INTEREST")
