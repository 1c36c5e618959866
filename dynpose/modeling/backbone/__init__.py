"""Backbones that detectron2 lacks, registered with detectron2.

They are selected in the config, by MODEL.BACKBONE.NAME and the keys of the network:

==================================  ==================  ======================================================
MODEL.BACKBONE.NAME                 network             outputs
==================================  ==================  ======================================================
``build_fcos_resnet_fpn_backbone``  ``MODEL.RESNETS``   p3..p7; p3..p5 if MODEL.FCOS.IN_FEATURES has no
``build_fcos_hrnet_fpn_backbone``   ``MODEL.HRNET``     p6 and p7. For FCPose and InsPose, with
``build_fcos_dla_fpn_backbone``     ``MODEL.DLA``       MODEL.FPN.IN_FEATURES ["res3", "res4", "res5"]
``build_fcos_swin_fpn_backbone``    ``MODEL.SWIN``
``build_fcos_timm_fpn_backbone``    ``MODEL.TIMM``
``build_hrnet_hrfpn_backbone``      ``MODEL.HRNET``     p2..p5 of HRNet's pyramid, as in QueryPose
``build_NETWORK_fpn_backbone``      hrnet, dla, swin    p2..p5, with MODEL.FPN.IN_FEATURES
                                    or timm             ["res2", "res3", "res4", "res5"]
``build_NETWORK_concat_backbone``   the same            ``concat``: res2..res5 at stride 4, as in CID's HRNet
``build_NETWORK_backbone``          the same            res2..res5
==================================  ==================  ======================================================

HRNet-W32 instead of ResNet-50::

    MODEL:
      WEIGHTS: "hrnet_w32.ms_in1k"
      PIXEL_MEAN: [123.675, 116.280, 103.530]
      PIXEL_STD: [58.395, 57.120, 57.375]
      BACKBONE: {NAME: "build_fcos_hrnet_fpn_backbone"}
      HRNET: {WIDTH: 32}
    INPUT:
      FORMAT: "RGB"

Any timm network with feature maps of strides 4, 8, 16 and 32, here a ConvNeXt::

    MODEL:
      WEIGHTS: "convnext_tiny.in12k_ft_in1k"
      PIXEL_MEAN: [123.675, 116.280, 103.530]
      PIXEL_STD: [58.395, 57.120, 57.375]
      BACKBONE: {NAME: "build_fcos_timm_fpn_backbone"}
      TIMM: {NAME: "convnext_tiny", DROP_PATH_RATE: 0.1}
    INPUT:
      FORMAT: "RGB"

The networks are timm's, in ``backbone.bottom_up.body``, built without a download. In all of them, res2, res3, res4 and
res5 have strides 4, 8, 16 and 32, and MODEL.BACKBONE.FREEZE_AT counts the stem and then these, as in detectron2's
ResNet. MODEL.WEIGHTS loads ImageNet weights (:mod:`dynpose.checkpoint.imagenet`): timm's, by their name in timm or from
a file, and for HRNet, DLA and Swin those of the original releases. They need RGB and, except for some of timm's, the
mean and deviation above.
"""

from typing import TYPE_CHECKING

from dynpose.utils.first_use import attributes_on_first_use

from . import builders, published_weights
from .branches import HRFPN, BranchConcat
from .builders import NETWORK_MODULES, build_backbone

if TYPE_CHECKING:
    from .dla import DLA
    from .hrnet import HRNet
    from .swin import Swin
    from .timm_network import Timm

__all__ = ["DLA", "HRFPN", "BranchConcat", "HRNet", "Swin", "Timm", "build_backbone", "builders", "published_weights"]

# they need timm
__getattr__ = attributes_on_first_use(__name__, NETWORK_MODULES)
