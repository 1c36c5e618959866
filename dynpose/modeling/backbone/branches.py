"""Necks that first up-sample all branches of HRNet to its finest resolution: CID's and QueryPose's."""

from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn
from torch.nn import functional as F


def concat_branches(maps: list[Tensor]) -> Tensor:
    """Concatenate maps of several resolutions at the first one's resolution.

    Args:
        maps (list[Tensor]): (B, C_i, H_i, W_i), finest first.

    Returns:
        Tensor: (B, sum of C_i, H_0, W_0); the others are up-sampled bilinearly, aligned at pixel centres.
    """
    size = maps[0].shape[-2:]
    finest, *others = maps
    return torch.cat(
        [finest, *(F.interpolate(other, size=size, mode="bilinear", align_corners=False) for other in others)], dim=1
    )


class BranchConcat(Backbone):
    """All outputs of a backbone, concatenated at the stride of the finest (CID section 4.1, HRNet's "V2" head).

    Args:
        bottom_up (Backbone): gives ``in_features``.
        in_features (Sequence[str]): its outputs, finest first.

    Example::

        >>> BranchConcat(HRNet(32), ("res2", "res3", "res4", "res5")).output_shape()
        {'concat': ShapeSpec(channels=480, height=None, width=None, stride=4)}
    """

    def __init__(self, bottom_up: Backbone, in_features: Sequence[str]):
        super().__init__()
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        shapes = bottom_up.output_shape()
        self._output = ShapeSpec(
            channels=sum(shapes[name].channels for name in self.in_features), stride=shapes[self.in_features[0]].stride
        )

    @property
    def size_divisibility(self) -> int:
        """Of the backbone below."""
        return self.bottom_up.size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        """The single map ``concat``."""
        return {"concat": self._output}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute ``concat`` (B, channels, H / stride, W / stride) of images (B, 3, H, W)."""
        maps = self.bottom_up(images)
        return {"concat": concat_branches([maps[name] for name in self.in_features])}


class HRFPN(Backbone):
    """HRNet's pyramid: the concatenated branches, reduced, then average-pooled to each level.

    The two forms are QueryPose's: without ``laterals`` (its HRNet-W32), level i is the reduced map pooled by 2^i; with
    them (its HRNet-W48), each level is pooled from the previous one and a 1x1 convolution of the branch of its stride
    is added. A 3x3 convolution follows on each level. Released weights also have the convolution of a fifth level and
    a lateral one of the finest branch, which contribute to no output; they are omitted.

    Args:
        bottom_up (Backbone): gives ``in_features``.
        in_features (Sequence[str]): its outputs, finest first.
        out_channels (int): channels of every level.
        laterals (bool): add the branches again. As in the release, the laterals and outputs then have no bias.
        norm (str): normalisation of the laterals and outputs, as in detectron2's FPN; "" = none.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        *,
        laterals: bool = False,
        norm: str = "",
    ):
        super().__init__()
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        shapes = [bottom_up.output_shape()[name] for name in self.in_features]
        bias = not laterals and not norm
        self.reduction = Conv2d(sum(shape.channels for shape in shapes), out_channels, kernel_size=1)
        self.laterals = nn.ModuleList()
        if laterals:
            self.laterals.extend(
                Conv2d(shape.channels, out_channels, kernel_size=1, bias=bias, norm=get_norm(norm, out_channels))
                for shape in shapes[1:]
            )
        self.outputs = nn.ModuleList(
            Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=bias, norm=get_norm(norm, out_channels))
            for _ in shapes
        )
        for conv in (self.reduction, *self.laterals, *self.outputs):
            c2_xavier_fill(conv)
        self._out_feature_strides = {f"p{shape.stride.bit_length() - 1}": shape.stride for shape in shapes}
        self._out_feature_channels = dict.fromkeys(self._out_feature_strides, out_channels)
        self._out_features = list(self._out_feature_strides)

    @property
    def size_divisibility(self) -> int:
        """Of the backbone below."""
        return self.bottom_up.size_divisibility

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            images (Tensor): (B, 3, H, W).

        Returns:
            dict[str, Tensor]: p2..p5 (for res2..res5): (B, out_channels, H / stride, W / stride).
        """
        maps = self.bottom_up(images)
        branches = [maps[name] for name in self.in_features]
        levels = [self.reduction(concat_branches(branches))]
        for index in range(1, len(branches)):
            level = F.avg_pool2d(levels[-1], kernel_size=2)
            if self.laterals:
                level = level + self.laterals[index - 1](branches[index])
            levels.append(level)
        return {name: output(level) for name, output, level in zip(self._out_features, self.outputs, levels)}
