"""The networks of InsPose as released in opera: a head with star-shaped convolutions, and two branches on P3.

Axes: B images, K keypoints, C channels, H x W cells of a map, S = 9 samples of a star.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from dynpose.config import blame
from dynpose.utils.exporting import is_recording, without_autocast

# A star replaces a 3x3 neighbourhood
_STAR_SAMPLES = 9


class ReleasedPredictions(NamedTuple):
    """Outputs of :class:`ReleasedHead`, each a list over the levels.

    Attributes:
        logits: (B, classes, H, W).
        offsets: (B, 2K, H, W), from the location to each keypoint, (x, y) by (x, y), in strides.
        controller_maps: (B, 2C, H, W), the controller's input.
    """

    logits: list[Tensor]
    offsets: list[Tensor]
    controller_maps: list[Tensor]


class ReleasedHead(nn.Module):
    """Classification, direct regression of the keypoints, and the controller's branch, shared by all levels.

    The star-shaped convolutions of the two other branches sample at the regressed keypoints.

    Args:
        in_channels: C, channels of every input map.
        num_keypoints: K.
        star_keypoints: S indices of the keypoints that a star samples; they may repeat.
        num_classes: without background; 1 = person.
        num_cls_convs, num_controller_convs: 3x3 convolutions before the stars.
        num_regression_convs: 3x3 convolutions of the regression branch.
        regression_channels: channels of the regression branch.
        norm: normalisation, a name of detectron2's ``get_norm``.
        star_gradient: factor on the gradient from the stars to the regression.
        prior_prob: initial probability that sets the classification bias.

    Raises:
        ValueError: if ``star_keypoints`` are not S indices of keypoints.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_keypoints: int,
        star_keypoints: Sequence[int],
        num_classes: int = 1,
        num_cls_convs: int = 4,
        num_controller_convs: int = 4,
        num_regression_convs: int = 4,
        regression_channels: int = 512,
        norm: str = "GN",
        star_gradient: float = 0.1,
        prior_prob: float = 0.01,
    ):
        super().__init__()
        _check_star(star_keypoints, num_keypoints)
        self.num_classes = num_classes
        self.star_keypoints = list(star_keypoints)
        self.star_gradient = star_gradient
        self.cls_tower = _tower(in_channels, in_channels, num_cls_convs, norm)
        self.controller_tower = _tower(in_channels, in_channels, num_controller_convs, norm)
        self.regression_tower = _tower(in_channels, regression_channels, num_regression_convs, norm)
        regression_channels = regression_channels if num_regression_convs else in_channels
        self.keypoint_offsets = nn.Conv2d(regression_channels, 2 * num_keypoints, 3, padding=1)
        self.cls_star = StarConv(in_channels, norm)
        self.controller_star = StarConv(in_channels, norm)
        self.cls_logits = nn.Conv2d(2 * in_channels, num_classes, 3, padding=1)
        for layer in (self.keypoint_offsets, self.cls_logits):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.constant_(self.cls_logits.get_parameter("bias"), -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int, num_keypoints: int) -> ReleasedHead:
        """Build from ``cfg.MODEL.FCOS`` and ``cfg.MODEL.INSPOSE_RELEASED``.

        Raises:
            ConfigError: if STAR_KEYPOINTS does not fit the keypoints. The model checks the other values.
        """
        fcos, released = cfg.MODEL.FCOS, cfg.MODEL.INSPOSE_RELEASED
        with blame("MODEL.INSPOSE_RELEASED.STAR_KEYPOINTS"):
            _check_star(released.STAR_KEYPOINTS, num_keypoints)
        return cls(
            in_channels=in_channels,
            num_keypoints=num_keypoints,
            star_keypoints=released.STAR_KEYPOINTS,
            num_classes=fcos.NUM_CLASSES,
            num_cls_convs=fcos.NUM_CLS_CONVS,
            num_controller_convs=fcos.NUM_BOX_CONVS,
            num_regression_convs=released.NUM_REGRESSION_CONVS,
            regression_channels=released.REGRESSION_CONVS_DIM,
            norm=fcos.NORM,
            star_gradient=released.STAR_GRADIENT,
            prior_prob=fcos.PRIOR_PROB,
        )

    def forward(self, features: list[Tensor]) -> ReleasedPredictions:
        """Predict at every location.

        Args:
            features: maps of shape (B, in_channels, H_l, W_l).
        """
        predictions = ReleasedPredictions([], [], [])
        for feature in features:
            offsets = self.keypoint_offsets(self.regression_tower(feature))
            star = scale_gradient(offsets.unflatten(1, (-1, 2))[:, self.star_keypoints], self.star_gradient)
            cls_tower = self.cls_tower(feature)
            controller_tower = self.controller_tower(feature)
            cls_map = torch.cat([cls_tower, self.cls_star(cls_tower, star)], dim=1)
            predictions.logits.append(self.cls_logits(cls_map))
            predictions.offsets.append(offsets)
            predictions.controller_maps.append(
                torch.cat([controller_tower, self.controller_star(controller_tower, star)], dim=1)
            )
        return predictions


class StarConv(nn.Module):
    """A deformable convolution whose S samples lie on keypoints, with normalisation and ReLU.

    Args:
        channels: C, of input and output.
        norm: a name of detectron2's ``get_norm``.
    """

    grid: Tensor

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.norm = get_norm(norm, channels) or nn.Identity()
        nn.init.normal_(self.weight, std=0.01)
        side = torch.arange(-1.0, 2.0)
        # (S, 2) x, y: the sampling positions of an ordinary 3x3 convolution, row by row
        grid = torch.cartesian_prod(side, side).flip(1)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, maps: Tensor, star: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            maps: (B, C, H, W).
            star: (B, S, 2, H, W), x and y of the samples relative to the cell, in cells.

        Returns:
            (B, C, H, W).
        """
        # Half precision is not supported on a CPU. At a NaN position, torchvision reads outside the map and crashes.
        # The losses still become NaN.
        with without_autocast(maps.device):
            if is_recording():
                star = star.float().nan_to_num(nan=0.0)
                sampled = sample_and_multiply(maps.float(), star, self.weight.float())
            else:
                shift = star - self.grid[:, :, None, None].to(star.dtype)
                # torchvision needs (y, x)
                shift = shift.flip(2).flatten(1, 2).float().nan_to_num(nan=0.0)
                sampled = deform_conv2d(maps.float(), shift, self.weight.float(), padding=1)
        return F.relu(self.norm(sampled))


def sample_and_multiply(maps: Tensor, star: Tensor, weight: Tensor) -> Tensor:
    """The convolution of a star, for graphs: OpenVINO has no form of ONNX's DeformConv.

    Args:
        maps: (B, C, H, W).
        star: (B, S, 2, H, W), x and y of the samples relative to the cell, in cells.
        weight: (O, C, 3, 3).

    Returns:
        (B, O, H, W).
    """
    height, width = maps.shape[-2:]
    row, column = (torch.arange(size, device=maps.device, dtype=maps.dtype) for size in (height, width))
    # -1 and 1 are the outer edges of the map
    x = (2 * (star[:, :, 0] + column) + 1) / width - 1
    y = (2 * (star[:, :, 1] + row[:, None]) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1).flatten(1, 2)
    samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # (B, C * S, H, W), in the order of the weight
    samples = samples.unflatten(2, (_STAR_SAMPLES, height)).flatten(1, 2)
    return F.conv2d(samples, weight.flatten(1, 3)[:, :, None, None])


class KeypointFeatures(nn.Module):
    """The keypoint feature branch (InsPose section 3.2): 3x3 convolutions on P3; the last outputs the KP-Nets' input.

    As in the release, the last one also has normalisation (two groups) and ReLU.

    Args:
        in_channels: channels of P3.
        channels: channels of the hidden convolutions.
        num_convs: number of hidden convolutions.
        out_channels: channels of the KP-Nets' input map F.
        norm: normalisation of the hidden convolutions.
    """

    def __init__(
        self, *, in_channels: int, channels: int = 128, num_convs: int = 4, out_channels: int = 8, norm: str = "GN"
    ):
        super().__init__()
        self.tower = _tower(in_channels, channels, num_convs, norm)
        groups = nn.GroupNorm(math.gcd(2, out_channels), out_channels)
        self.project = _conv(channels if num_convs else in_channels, out_channels, groups)

    def forward(self, feature: Tensor) -> Tensor:
        """Compute F from P3: (B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return self.project(self.tower(feature))


class AuxBranch(nn.Module):
    """Multi-person maps at twice P3's resolution: heatmaps and tags for training, disk offsets also for inference.

    Args:
        in_channels: channels of P3.
        channels: C.
        num_convs: 3x3 convolutions; the last follows the bilinear up-sampling.
        num_keypoints: K.
        norm: a name of detectron2's ``get_norm``.

    Raises:
        ValueError: if ``num_convs`` is below 1.
    """

    factor = 2

    def __init__(
        self, *, in_channels: int, channels: int = 512, num_convs: int = 3, num_keypoints: int, norm: str = "GN"
    ):
        super().__init__()
        if num_convs < 1:
            raise ValueError(f"num_convs: expected at least 1, since it includes the last convolution, got {num_convs}")
        self.tower = _tower(in_channels, channels, num_convs - 1, norm)
        self.fine_tower = _tower(channels if num_convs > 1 else in_channels, channels, 1, norm)
        self.heatmaps = nn.Conv2d(channels, num_keypoints, 3, padding=1)
        self.tags = nn.Conv2d(channels, num_keypoints, 3, padding=1)
        self.disk_offsets = nn.Conv2d(channels, 2 * num_keypoints, 3, padding=1)
        for layer in (self.heatmaps, self.tags, self.disk_offsets):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))
        # as in CornerNet: an initial probability of 0.1 in every cell
        nn.init.constant_(self.heatmaps.get_parameter("bias"), -math.log(9))

    def features(self, feature: Tensor) -> Tensor:
        """Compute the input of the three maps: (B, in_channels, H, W) -> (B, C, 2H, 2W)."""
        fine = F.interpolate(self.tower(feature), scale_factor=self.factor, mode="bilinear", align_corners=False)
        return self.fine_tower(fine)

    def offsets(self, features: Tensor) -> Tensor:
        """Disk offsets in cells: (B, C, h, w) from :meth:`features` -> (B, K, 2, h, w), x and y."""
        return self.disk_offsets(features).unflatten(1, (-1, 2))


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """Return the values unchanged, with the gradient multiplied by ``factor``."""
    if not torch.is_grad_enabled():
        return values
    constant = values.detach()
    return constant + (values - constant) * factor


def _tower(in_channels, channels, num_convs, norm):
    convs = [_conv(channels if i else in_channels, channels, get_norm(norm, channels)) for i in range(num_convs)]
    return nn.Sequential(*convs)


def _conv(in_channels, channels, norm):
    """3x3 convolution with normalisation and ReLU; unlike FCOS's, the convolution has no bias."""
    conv = Conv2d(in_channels, channels, 3, padding=1, bias=norm is None, norm=norm, activation=F.relu)
    nn.init.normal_(conv.weight, std=0.01)
    return conv


def _check_star(star_keypoints, num_keypoints):
    if len(star_keypoints) != _STAR_SAMPLES:
        raise ValueError(
            f"star_keypoints: expected {_STAR_SAMPLES} indices, one for each sample of a 3x3 convolution, got "
            f"{len(star_keypoints)}: {list(star_keypoints)}; an index may occur more than once"
        )
    wrong = [index for index in star_keypoints if not 0 <= index < num_keypoints]
    if wrong:
        raise ValueError(
            f"star_keypoints: {list(star_keypoints)} has {wrong}, but the model's keypoints are 0 to "
            f"{num_keypoints - 1}: choose {_STAR_SAMPLES} of those that outline the object; an index may occur more "
            "than once"
        )
