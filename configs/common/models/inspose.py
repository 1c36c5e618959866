from detectron2.config import LazyCall as L

from dynpose.config import get_attribute
from dynpose.data import known_schema
from dynpose.layers import KPNetSpec
from dynpose.modeling.fcos import FCOSDecoder, FCOSDetector, FCOSHead, LocationConv
from dynpose.modeling.inspose import AuxHeatmap, DiskOffsets, InsPose, InsPoseOptions, KeypointFeatures
from dynpose.modeling.kp_net import KPNetHead

from .fcos_resnet_fpn import backbone

# InsPose as the paper describes it: the model of configs/InsPose/Base-InsPose.yaml
model = L(InsPose)(
    backbone=backbone,
    disk_offsets=L(DiskOffsets)(
        in_channels="${..backbone.out_channels}",
        num_keypoints="${..kp_net_head.spec.num_keypoints}",
        conv_dim=256,
        num_convs=3,
        norm="GN",
        std=0.01,
    ),
    aux_heatmap=L(AuxHeatmap)(
        in_channels="${..backbone.out_channels}",
        num_keypoints="${..kp_net_head.spec.num_keypoints}",
        conv_dim=256,
        num_convs=2,
        norm="GN",
        std=0.01,
    ),
    head=L(FCOSHead)(
        in_channels="${..backbone.out_channels}",
        num_levels=5,
        num_classes="${..detector.num_classes}",
        norm="GN",
        with_boxes=False,
        with_centerness=False,
        tower_std=0.01,
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    keypoint_features=L(KeypointFeatures)(
        in_channels="${..backbone.out_channels}",
        conv_dim=128,
        num_convs=4,
        norm="GN",
        std=0.01,
        out_channels="${..kp_net_head.spec.in_channels}",
    ),
    kp_net_head=L(KPNetHead)(
        controller=L(LocationConv)(
            in_channels="${...backbone.out_channels}",
            out_channels=L(get_attribute)(of="${...spec}", name="num_params"),
            kernel_size=3,
        ),
        spec=L(KPNetSpec)(
            in_channels=8,
            width=8,
            depth=3,
            num_keypoints=L(get_attribute)(of="${....schema}", name="num_keypoints"),
            coords_position="last",
            coords_sign=1,
        ),
        stride=8,
        # eight strides of each level
        coord_scales=[64, 128, 256, 512, 1024],
    ),
    detector=L(FCOSDetector)(
        strides=[8, 16, 32, 64, 128],
        sizes_of_interest=[64, 128, 256, 512],
        num_classes=1,
        inside_box=False,
        decoder=L(FCOSDecoder)(score_thresh=0.1, pre_nms_topk=500, topk_per_level=False),
    ),
    schema=L(known_schema)(name="coco"),
    options=L(InsPoseOptions)(map_stride=8),
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
)
