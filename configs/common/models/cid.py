from detectron2.config import LazyCall as L

from dynpose.config import get_attribute
from dynpose.data import known_schema
from dynpose.modeling.backbone import BranchConcat, HRNet
from dynpose.modeling.cid import CID, CIDOptions, FeatureDecoupling, InstanceAbstraction

# CID with HRNet-W32: the model of configs/CID/Base-CID.yaml
model = L(CID)(
    backbone=L(BranchConcat)(bottom_up=L(HRNet)(width=32, norm="BN"), in_features=["res2", "res3", "res4", "res5"]),
    in_features=["concat"],
    iia=L(InstanceAbstraction)(
        # the 32, 64, 128 and 256 channels of the branches
        in_channels=480,
        num_keypoints=L(get_attribute)(of="${...schema}", name="num_keypoints"),
        max_proposals=30,
        score_thresh=0.01,
        smoothing=3,
    ),
    gfd=L(FeatureDecoupling)(
        in_channels="${..iia.in_channels}",
        num_keypoints="${..iia.num_keypoints}",
        channels=32,
        recalibration=["spatial", "channel"],
        channel_weights="linear",
    ),
    schema=L(known_schema)(name="coco"),
    options=L(CIDOptions)(smoothing="${..iia.smoothing}"),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
)
