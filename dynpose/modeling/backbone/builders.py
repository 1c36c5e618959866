"""Builders of the backbones named in a config, registered with detectron2: networks alone or with a neck."""

import importlib

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling import build_backbone as build_registered
from detectron2.modeling.backbone import FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import nn

from dynpose.config import ConfigError, check_at_least_one, check_choice, check_norm

from .branches import HRFPN, BranchConcat

# Their modules import timm, which takes half a second, when one of them is built
NETWORK_MODULES = {"HRNet": "hrnet", "DLA": "dla", "Swin": "swin", "Timm": "timm_network"}
# those of detectron2's build_resnet_backbone
_RESNET_DEPTHS = (18, 34, 50, 101, 152)


def build_backbone(cfg: CfgNode) -> Backbone:
    """Build the backbone that ``cfg.MODEL.BACKBONE.NAME`` names, like detectron2's function.

    Args:
        cfg (CfgNode): the config.

    Returns:
        Backbone

    Raises:
        ConfigError: if no backbone of that name is registered, or a key of the backbone has an invalid value.
    """
    if cfg.MODEL.BACKBONE.NAME not in BACKBONE_REGISTRY:
        raise ConfigError(
            f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} is not registered; known are "
            f"{', '.join(sorted(name for name, _ in BACKBONE_REGISTRY))}"
        )
    if "resnet" in cfg.MODEL.BACKBONE.NAME:
        check_choice(cfg, "MODEL.RESNETS.DEPTH", _RESNET_DEPTHS)
    return build_registered(cfg)


def network_class(name: str) -> type[Backbone]:
    """Import the class of a network of timm: DLA, HRNet, Swin or Timm."""
    return getattr(importlib.import_module(f".{NETWORK_MODULES[name]}", __package__), name)


def plain_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module | None = None) -> FPN:
    """Build detectron2's FPN on a backbone, with ``cfg.MODEL.FPN``.

    Args:
        cfg (CfgNode): MODEL.FPN.
        bottom_up (Backbone): gives MODEL.FPN.IN_FEATURES.
        top_block (nn.Module | None): computes further, coarser levels.

    Returns:
        FPN: one level per entry of MODEL.FPN.IN_FEATURES (p2 for stride 4, ...), and those of ``top_block``.

    Raises:
        ConfigError: if MODEL.FPN.FUSE_TYPE or NORM is not a valid choice, OUT_CHANNELS is below 1, or IN_FEATURES names
            a missing output of the backbone.
    """
    _check_fpn(cfg, bottom_up)
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def fcos_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Build FCOS's pyramid on a backbone: P6 and P7 are computed from P5 (FCOS section 3.2; FCPose section 4).

    detectron2's ``build_retinanet_resnet_fpn_backbone`` computes them from C5. Real-time detectors have neither (FCPose
    section 4.3).

    Args:
        cfg (CfgNode): MODEL.FPN, with IN_FEATURES at strides 8, 16 and 32; P6 and P7 exist only if
            MODEL.FCOS.IN_FEATURES names them, because the parameters of an unused level get no gradient and
            DistributedDataParallel would wait for it.
        bottom_up (Backbone): gives MODEL.FPN.IN_FEATURES.

    Returns:
        FPN: p3..p7 at strides 8..128, or p3..p5.

    Raises:
        ConfigError: if MODEL.FCOS.IN_FEATURES has only one of p6 and p7; see also :func:`plain_fpn`.
    """
    top_levels = {"p6", "p7"} & set(cfg.MODEL.FCOS.IN_FEATURES)
    if len(top_levels) == 1:
        raise ConfigError(
            f"MODEL.FCOS.IN_FEATURES must have both or none of p6 and p7, got {cfg.MODEL.FCOS.IN_FEATURES}"
        )
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return plain_fpn(cfg, bottom_up, LastLevelP6P7(channels, channels, in_feature="p5") if top_levels else None)


def hrfpn(cfg: CfgNode, bottom_up: Backbone) -> HRFPN:
    """Build HRNet's pyramid p2..p5 on all outputs of a backbone, with MODEL.FPN and MODEL.HRNET.HRFPN_LATERALS."""
    _check_out_channels(cfg)
    return HRFPN(
        bottom_up,
        bottom_up.output_shape(),
        cfg.MODEL.FPN.OUT_CHANNELS,
        laterals=cfg.MODEL.HRNET.HRFPN_LATERALS,
        norm=cfg.MODEL.FPN.NORM,
    )


def concat(cfg: CfgNode, bottom_up: Backbone) -> BranchConcat:
    """Concatenate all outputs of a backbone at stride 4."""
    return BranchConcat(bottom_up, bottom_up.output_shape())


def _check_fpn(cfg, bottom_up):
    _check_out_channels(cfg)
    check_choice(cfg, "MODEL.FPN.FUSE_TYPE", ("sum", "avg"))
    names, known = cfg.MODEL.FPN.IN_FEATURES, bottom_up.output_shape()
    if not names or not set(names) <= set(known):
        raise ConfigError(f"MODEL.FPN.IN_FEATURES must name one or more of {', '.join(known)}, got {list(names)}")


def _check_out_channels(cfg):
    check_at_least_one(cfg, "MODEL.FPN.OUT_CHANNELS")
    check_norm(cfg, "MODEL.FPN.NORM", cfg.MODEL.FPN.OUT_CHANNELS)


def _network_builder(network):
    """Return a builder of res2..res5."""
    return lambda cfg, input_shape: network_class(network).from_config(cfg, input_shape)


def _neck_builder(network, neck):
    """Return a builder of a neck on all outputs."""
    return lambda cfg, input_shape: neck(cfg, network_class(network).from_config(cfg, input_shape))


def _pyramid_builder(network, neck):
    """Return a builder of a neck on MODEL.FPN.IN_FEATURES."""
    return lambda cfg, input_shape: neck(
        cfg, network_class(network).from_config(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES)
    )


def _builders():
    """The registered builders: name in a config -> (cfg, input_shape) -> Backbone."""
    builders = {
        "build_fcos_resnet_fpn_backbone": lambda cfg, input_shape: fcos_fpn(
            cfg, build_resnet_backbone(cfg, input_shape)
        ),
        "build_hrnet_hrfpn_backbone": _neck_builder("HRNet", hrfpn),
    }
    for network in NETWORK_MODULES:
        name = network.lower()
        builders[f"build_{name}_backbone"] = _network_builder(network)
        builders[f"build_{name}_concat_backbone"] = _neck_builder(network, concat)
        builders[f"build_{name}_fpn_backbone"] = _pyramid_builder(network, plain_fpn)
        builders[f"build_fcos_{name}_fpn_backbone"] = _pyramid_builder(network, fcos_fpn)
    return builders


for _name, _build in _builders().items():
    # detectron2's registry uses the function's name
    _build.__name__ = _name
    BACKBONE_REGISTRY.register(_build)
