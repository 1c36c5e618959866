"""A CID on a backbone of one convolution, whose cells see no more than their own pixels."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from small_models import SCHEMA
from torch import nn

from dynpose.modeling.cid import CID, CIDOptions, FeatureDecoupling, InstanceAbstraction

CHANNELS = 12


class Patches(Backbone):
    """A 1x1 convolution of patches of ``stride`` x ``stride`` pixels; images are padded to twice as much."""

    def __init__(self, stride=4):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(3, CHANNELS, kernel_size=stride, stride=stride)

    @property
    def size_divisibility(self):
        return 2 * self.stride

    def output_shape(self):
        return {"patches": ShapeSpec(channels=CHANNELS, stride=self.stride)}

    def forward(self, images):
        return {"patches": self.conv(images).tanh()}


def tiny_model(*, schema=SCHEMA, seed=0, stride=4, iia=None, gfd=None, loss_weights=None, **options):
    """A CPU model without a config. Its random weights are larger than training's first ones, to tell cells apart."""
    torch.manual_seed(seed)
    num_keypoints = schema.num_keypoints
    model = CID(
        backbone=Patches(stride),
        in_features=("patches",),
        iia=InstanceAbstraction(CHANNELS, num_keypoints, **(iia or {})),
        gfd=FeatureDecoupling(CHANNELS, num_keypoints, **{"channels": 8, "init_std": 0, **(gfd or {})}),
        schema=schema,
        options=CIDOptions(loss_weights={**CIDOptions().loss_weights, **(loss_weights or {})}, **options),
        pixel_mean=[110.0, 115.0, 120.0],
        pixel_std=[60.0, 60.0, 60.0],
    )
    for conv in (model.iia.heatmaps, model.gfd.heatmaps):
        nn.init.normal_(conv.weight, std=0.5)
    return model
