from detectron2.config import LazyCall as L

from dynpose.config import get_attribute
from dynpose.data import known_schema
from dynpose.layers import KPNetSpec
from dynpose.modeling.fcos import FCOSDecoder, FCOSDetector, LocationConv
from dynpose.modeling.inspose import InsPoseReleased, ReleasedOptions
from dynpose.modeling.inspose.released_head import AuxBranch, KeypointFeatures, ReleasedHead
from dynpose.modeling.kp_net import KPNetHead

from .fcos_resnet_fpn import backbone

# torchvision's ResNet-50: the stride is in the 3x3 convolutions, and its statistics are learned
backbone.bottom_up.stem.norm = "BN"
backbone.bottom_up.stages.update(stride_in_1x1=False, norm="BN")

# InsPose as released: the model of configs/InsPose/R_50_3x_release.yaml
model = L(InsPoseReleased)(
    backbone=backbone,
    head=L(ReleasedHead)(
        in_channels="${..backbone.out_channels}",
        num_keypoints="${..kp_net_head.spec.num_keypoints}",
        # COCO's nose, shoulders, wrists, hips and ankles
        star_keypoints=[0, 5, 6, 9, 10, 11, 12, 15, 16],
        num_classes="${..detector.num_classes}",
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    keypoint_features=L(KeypointFeatures)(
        in_channels="${..backbone.out_channels}", out_channels="${..kp_net_head.spec.in_channels}"
    ),
    aux_branch=L(AuxBranch)(
        in_channels="${..backbone.out_channels}", num_keypoints="${..kp_net_head.spec.num_keypoints}"
    ),
    kp_net_head=L(KPNetHead)(
        # on the tower and on the output of its star-shaped convolution
        controller=L(LocationConv)(
            in_channels=512, out_channels=L(get_attribute)(of="${...spec}", name="num_params"), kernel_size=3
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
        decoder=L(FCOSDecoder)(score_thresh=0.05, pre_nms_topk=1000, nms_thresh=0.3),
    ),
    schema=L(known_schema)(name="coco"),
    options=L(ReleasedOptions)(
        nms={"method": "linear", "sigma": 0.5, "min_score": 0.001},
        varifocal={"alpha": 0.75, "gamma": 2.0},
        loss_weights={
            "keypoint": 1.0,
            "keypoint_reg": 1.0,
            "heatmap": 1.0,
            "ae_pull": 1.0,
            "ae_push": 1.0,
            "heatmap_offset": 1.0,
        },
    ),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
)
