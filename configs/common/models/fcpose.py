from detectron2.config import LazyCall as L

from dynpose.config import get_attribute
from dynpose.data import known_schema
from dynpose.layers import KPNetSpec
from dynpose.modeling.fcos import FCOSDecoder, FCOSDetector, FCOSHead, LocationConv
from dynpose.modeling.fcpose import BasisBranch, FCPose, FCPoseOptions, SharedOffsets
from dynpose.modeling.kp_net import KPNetHead

from .fcos_resnet_fpn import backbone

# FCPose as the paper describes it: the model of configs/FCPose/Base-FCPose.yaml
model = L(FCPose)(
    backbone=backbone,
    refinement=L(SharedOffsets)(
        in_channels="${..backbone.out_channels}", num_keypoints="${..kp_net_head.spec.num_keypoints}"
    ),
    head=L(FCOSHead)(
        in_channels="${..backbone.out_channels}", num_levels=5, num_classes="${..detector.num_classes}", norm="GN"
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    basis=L(BasisBranch)(
        in_features=["p3", "p4", "p5"],
        in_channels=["${...backbone.out_channels}"] * 3,
        strides=[8, 16, 32],
        conv_dim=128,
        num_convs=4,
        norm="SyncBN",
        # F, and the offsets where the refinement reads them from this branch
        out_channels="${..kp_net_head.spec.in_channels}",
    ),
    kp_net_head=L(KPNetHead)(
        # the parameters of a KP-Net, and those of the refinement where it has any
        controller=L(LocationConv)(
            in_channels="${...backbone.out_channels}",
            out_channels=L(get_attribute)(of="${...spec}", name="num_params"),
            kernel_size=1,
        ),
        spec=L(KPNetSpec)(
            in_channels=32,
            width=32,
            depth=3,
            num_keypoints=L(get_attribute)(of="${....schema}", name="num_keypoints"),
            coords_position="first",
            coords_sign=-1,
        ),
        stride=8,
        coord_scales=[64, 128, 256, 512, 1333],
    ),
    detector=L(FCOSDetector)(
        strides=[8, 16, 32, 64, 128],
        sizes_of_interest=[64, 128, 256, 512],
        num_classes=1,
        decoder=L(FCOSDecoder)(),
    ),
    schema=L(known_schema)(name="coco"),
    options=L(FCPoseOptions)(max_samples=50),
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
)
