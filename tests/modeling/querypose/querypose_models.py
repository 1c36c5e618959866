"""A small QueryPose on a backbone of one convolution."""

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from small_models import SCHEMA
from torch import nn

from dynpose.modeling.querypose import (
    BoxStage,
    KeypointStage,
    QueryPose,
    QueryPoseOptions,
    RealNVP,
    RoIPooling,
    divide_into_parts,
)

DIM = 16
NUM_QUERIES = 6
NUM_STAGES = 3
KEYS = ["loss_class", "loss_l1", "loss_giou", "loss_keypoint"]


class Pyramid(Backbone):
    """A convolution of patches of 4 x 4 pixels, p2, and its means over larger ones."""

    def __init__(self, channels=DIM):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(3, channels, kernel_size=4, stride=4)

    @property
    def size_divisibility(self):
        return 32

    def output_shape(self):
        return {f"p{i}": ShapeSpec(channels=self.channels, stride=2**i) for i in range(2, 6)}

    def forward(self, images):
        finest = self.conv(images).tanh()
        return {f"p{i}": F.avg_pool2d(finest, 2 ** (i - 2)) for i in range(2, 6)}


def tiny_model(
    *,
    schema=SCHEMA,
    seed=0,
    num_stages=NUM_STAGES,
    keypoint=None,
    box=None,
    num_queries=NUM_QUERIES,
    in_features=("p2", "p3", "p4", "p5"),
    **options,
):
    """A CPU model with random weights, boxes all over the image, and keypoints in and around them, without a config."""
    torch.manual_seed(seed)
    model = QueryPose(
        backbone=Pyramid(),
        box_stages=[
            BoxStage(DIM, **{"num_heads": 2, "feedforward_dim": 24, "dynamic_dim": 8, "resolution": 3, **(box or {})})
            for _ in range(num_stages)
        ],
        keypoint_stages=[
            KeypointStage(
                **{
                    "parts": divide_into_parts(schema),
                    "hidden_dim": DIM,
                    "part_dim": 32,
                    "num_convs": 2,
                    "conv_dim": 12,
                    "resolution": 4,
                    "dynamic_dim": 8,
                    "num_heads": 2,
                    "feedforward_dim": 24,
                    "part_feedforward_dim": 12,
                    **(keypoint or {}),
                }
            )
            for _ in range(num_stages)
        ],
        flow=RealNVP(),
        schema=schema,
        num_queries=num_queries,
        hidden_dim=DIM,
        pooling=RoIPooling(in_features, resolution=3, keypoint_resolution=4),
        options=QueryPoseOptions(**options),
        pixel_mean=[110.0, 115.0, 120.0],
        pixel_std=[60.0, 60.0, 60.0],
    )
    with torch.no_grad():
        model.proposal_boxes.weight[:, :2].uniform_(0.2, 0.8)
        model.proposal_boxes.weight[:, 2:].uniform_(0.3, 0.6)
        for stage in model.box_stages:
            stage.box_deltas.weight.mul_(0.2)
    return model
