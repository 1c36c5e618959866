"""Feature pyramids in the form that the methods want."""

from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7


@BACKBONE_REGISTRY.register()
def build_fcos_resnet_fpn_backbone(cfg, input_shape):
    """ResNet with P3-P7, where P6 and P7 are made of P5, as FCOS has them (FCOS section 3.2; FCPose section 4).

    detectron2's ``build_retinanet_resnet_fpn_backbone`` makes them of C5.

    Args:
        cfg (CfgNode): MODEL.RESNETS and MODEL.FPN, with OUT_FEATURES res3, res4, res5.
        input_shape (ShapeSpec): of the image.

    Returns:
        Backbone: p3..p7 at strides 8..128.
    """
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(channels, channels, in_feature="p5"),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
