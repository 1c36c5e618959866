"""Backbones that detectron2 lacks, registered with detectron2.

They are chosen by config alone: MODEL.BACKBONE.NAME, and the keys of the network:

=====================================  ==================  ===================================================
MODEL.BACKBONE.NAME                    network             outputs
=====================================  ==================  ===================================================
``build_fcos_resnet_fpn_backbone``     ``MODEL.RESNETS``   p3..p7; p3..p5 where MODEL.FCOS.IN_FEATURES has no
``build_fcos_hrnet_fpn_backbone``      ``MODEL.HRNET``     p6 and p7. For FCPose and InsPose, with
``build_fcos_dla_fpn_backbone``        ``MODEL.DLA``       MODEL.FPN.IN_FEATURES ["res3", "res4", "res5"]
``build_fcos_swin_fpn_backbone``       ``MODEL.SWIN``
``build_hrnet_fpn_backbone``           ``MODEL.HRNET``     p2..p5, with
``build_dla_fpn_backbone``             ``MODEL.DLA``       MODEL.FPN.IN_FEATURES ["res2", "res3", "res4",
``build_swin_fpn_backbone``            ``MODEL.SWIN``      "res5"]
``build_hrnet_hrfpn_backbone``         ``MODEL.HRNET``     p2..p5 of HRNet's own pyramid, as QueryPose has it
``build_hrnet_concat_backbone``        ``MODEL.HRNET``     ``concat``: all branches at stride 4, as CID has them
``build_hrnet_backbone``               ``MODEL.HRNET``     res2..res5
``build_dla_backbone``                 ``MODEL.DLA``       res2..res5
``build_swin_backbone``                ``MODEL.SWIN``      res2..res5
=====================================  ==================  ===================================================

For HRNet-W32 in place of ResNet-50, for instance::

    MODEL:
      WEIGHTS: "hrnetv2_w32_imagenet_pretrained.pth"
      PIXEL_MEAN: [123.675, 116.280, 103.530]
      PIXEL_STD: [58.395, 57.120, 57.375]
      BACKBONE: {NAME: "build_fcos_hrnet_fpn_backbone"}
      HRNET: {WIDTH: 32}
    INPUT:
      FORMAT: "RGB"

The networks are timm's, in ``backbone.bottom_up.body``, built without a download. res2, res3, res4 and res5 have
strides 4, 8, 16 and 32 in all of them, and MODEL.BACKBONE.FREEZE_AT counts the stem and then these, as for detectron2's
ResNet. ImageNet weights (the original releases' files or timm's, which want RGB and the mean and deviation above) load
by MODEL.WEIGHTS: :mod:`dynpose.checkpoint.imagenet`.
"""

from .branches import HRFPN, BranchConcat
from .dla import DLA
from .fpn import (
    build_dla_backbone,
    build_dla_fpn_backbone,
    build_fcos_dla_fpn_backbone,
    build_fcos_hrnet_fpn_backbone,
    build_fcos_resnet_fpn_backbone,
    build_fcos_swin_fpn_backbone,
    build_hrnet_backbone,
    build_hrnet_concat_backbone,
    build_hrnet_fpn_backbone,
    build_hrnet_hrfpn_backbone,
    build_swin_backbone,
    build_swin_fpn_backbone,
)
from .hrnet import HRNet
from .swin import Swin

__all__ = [
    "DLA",
    "HRFPN",
    "BranchConcat",
    "HRNet",
    "Swin",
    "build_dla_backbone",
    "build_dla_fpn_backbone",
    "build_fcos_dla_fpn_backbone",
    "build_fcos_hrnet_fpn_backbone",
    "build_fcos_resnet_fpn_backbone",
    "build_fcos_swin_fpn_backbone",
    "build_hrnet_backbone",
    "build_hrnet_concat_backbone",
    "build_hrnet_fpn_backbone",
    "build_hrnet_hrfpn_backbone",
    "build_swin_backbone",
    "build_swin_fpn_backbone",
]
