"""Feature pyramids in the form that the methods want."""

from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from .branches import HRFPN, BranchConcat
from .dla import DLA
from .hrnet import HRNet
from .swin import Swin


@BACKBONE_REGISTRY.register()
def build_fcos_resnet_fpn_backbone(cfg, input_shape):
    """ResNet with P3-P7, where P6 and P7 are made of P5, as FCOS has them (FCOS section 3.2; FCPose section 4).

    detectron2's ``build_retinanet_resnet_fpn_backbone`` makes them of C5.

    Args:
        cfg (CfgNode): MODEL.RESNETS and MODEL.FPN, with OUT_FEATURES res3, res4, res5.
        input_shape (ShapeSpec): of the image.

    Returns:
        Backbone: p3..p7 at strides 8..128, or p3..p5 as :func:`fcos_fpn` says.
    """
    return fcos_fpn(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_fcos_hrnet_fpn_backbone(cfg, input_shape):
    """HRNet (MODEL.HRNET) with P3-P7 for FCOS: InsPose section 3.1."""
    return fcos_fpn(cfg, HRNet.from_cfg(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES))


@BACKBONE_REGISTRY.register()
def build_fcos_dla_fpn_backbone(cfg, input_shape):
    """DLA (MODEL.DLA) with P3-P7 for FCOS, or P3-P5 for real time: FCPose section 4.3."""
    return fcos_fpn(cfg, DLA.from_cfg(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES))


@BACKBONE_REGISTRY.register()
def build_fcos_swin_fpn_backbone(cfg, input_shape):
    """Swin (MODEL.SWIN) with P3-P7 for FCOS."""
    return fcos_fpn(cfg, Swin.from_cfg(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES))


@BACKBONE_REGISTRY.register()
def build_hrnet_fpn_backbone(cfg, input_shape):
    """HRNet (MODEL.HRNET) with a plain FPN: P2-P5 of MODEL.FPN.IN_FEATURES res2..res5."""
    return plain_fpn(cfg, HRNet.from_cfg(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES))


@BACKBONE_REGISTRY.register()
def build_dla_fpn_backbone(cfg, input_shape):
    """DLA (MODEL.DLA) with a plain FPN: P2-P5 of MODEL.FPN.IN_FEATURES res2..res5."""
    return plain_fpn(cfg, DLA.from_cfg(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES))


@BACKBONE_REGISTRY.register()
def build_swin_fpn_backbone(cfg, input_shape):
    """Swin (MODEL.SWIN) with a plain FPN: P2-P5 of MODEL.FPN.IN_FEATURES res2..res5."""
    return plain_fpn(cfg, Swin.from_cfg(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES))


@BACKBONE_REGISTRY.register()
def build_hrnet_hrfpn_backbone(cfg, input_shape):
    """HRNet (MODEL.HRNET) with its own pyramid (:class:`HRFPN`): P2-P5 of all four branches."""
    bottom_up = HRNet.from_cfg(cfg, input_shape)
    return HRFPN(
        bottom_up,
        bottom_up.output_shape(),
        cfg.MODEL.FPN.OUT_CHANNELS,
        laterals=cfg.MODEL.HRNET.HRFPN_LATERALS,
        norm=cfg.MODEL.FPN.NORM,
    )


@BACKBONE_REGISTRY.register()
def build_hrnet_concat_backbone(cfg, input_shape):
    """HRNet (MODEL.HRNET) with its four branches concatenated at stride 4 (:class:`BranchConcat`): ``concat``."""
    bottom_up = HRNet.from_cfg(cfg, input_shape)
    return BranchConcat(bottom_up, bottom_up.output_shape())


@BACKBONE_REGISTRY.register()
def build_hrnet_backbone(cfg, input_shape):
    """HRNet (MODEL.HRNET) alone: res2..res5."""
    return HRNet.from_cfg(cfg, input_shape)


@BACKBONE_REGISTRY.register()
def build_dla_backbone(cfg, input_shape):
    """DLA (MODEL.DLA) alone: res2..res5."""
    return DLA.from_cfg(cfg, input_shape)


@BACKBONE_REGISTRY.register()
def build_swin_backbone(cfg, input_shape):
    """Swin (MODEL.SWIN) alone: res2..res5."""
    return Swin.from_cfg(cfg, input_shape)


def fcos_fpn(cfg, bottom_up):
    """The pyramid of FCOS on a backbone.

    Args:
        cfg (CfgNode): MODEL.FPN, with IN_FEATURES at strides 8, 16 and 32; P6 and P7 are there where
            MODEL.FCOS.IN_FEATURES names them: a level that nothing looks at has parameters without a gradient, for
            which a distributed run waits in vain.
        bottom_up (Backbone): gives MODEL.FPN.IN_FEATURES.

    Returns:
        FPN: p3..p7 at strides 8..128, or p3..p5.

    Raises:
        ValueError: if MODEL.FCOS.IN_FEATURES has only one of p6 and p7.
    """
    top_levels = {"p6", "p7"} & set(cfg.MODEL.FCOS.IN_FEATURES)
    if len(top_levels) == 1:
        raise ValueError(
            f"MODEL.FCOS.IN_FEATURES must have both or none of p6 and p7, got {cfg.MODEL.FCOS.IN_FEATURES}"
        )
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return plain_fpn(cfg, bottom_up, LastLevelP6P7(channels, channels, in_feature="p5") if top_levels else None)


def plain_fpn(cfg, bottom_up, top_block=None):
    """detectron2's FPN on a backbone, with ``cfg.MODEL.FPN``.

    Args:
        cfg (CfgNode): MODEL.FPN.
        bottom_up (Backbone): gives MODEL.FPN.IN_FEATURES.
        top_block (nn.Module | None): makes further, coarser levels.

    Returns:
        FPN: one level for each of MODEL.FPN.IN_FEATURES (p2 for stride 4, ...), and those of ``top_block``.
    """
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
