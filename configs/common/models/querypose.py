from detectron2.config import LazyCall as L

from dynpose.data import known_schema
from dynpose.modeling.querypose import (
    BoxStage,
    KeypointStage,
    QueryPose,
    QueryPoseOptions,
    RealNVP,
    RoIPooling,
    divide_into_parts,
)

from .resnet_fpn import backbone

# torchvision's ResNet-50
backbone.bottom_up.stages.stride_in_1x1 = False

# QueryPose as the paper describes it: the model of configs/QueryPose/Base-QueryPose.yaml
model = L(QueryPose)(
    backbone=backbone,
    pooling=L(RoIPooling)(resolution=7, keypoint_resolution=14),
    box_stages=[
        L(BoxStage)(hidden_dim="${...hidden_dim}", resolution="${...pooling.resolution}", num_classes=1)
        for _ in range(6)
    ],
    keypoint_stages=[
        L(KeypointStage)(
            # None: rigid parts for COCO's and CrowdPose's keypoints, else each keypoint is a part
            parts=L(divide_into_parts)(schema="${....schema}", division=None),
            hidden_dim="${...hidden_dim}",
            part_dim=128,
            resolution="${...pooling.keypoint_resolution}",
        )
        for _ in range(6)
    ],
    flow=L(RealNVP)(),
    schema=L(known_schema)(name="coco"),
    num_queries=100,
    hidden_dim="${.backbone.out_channels}",
    options=L(QueryPoseOptions)(max_detections=100),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
)
