"""DLA (Yu et al., Deep Layer Aggregation, CVPR 2018)."""

from collections.abc import Sequence
from typing import Any

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from dynpose.config import check_choice
from dynpose.utils.arguments import check_one_of

from .timm_backbone import STRIDES, TimmBackbone, check_shared_keys, feature_channels

_DEPTHS = (34, 60, 102, 169)

_STAGES = (("base_layer", "level0", "level1"), ("level2",), ("level3",), ("level4",), ("level5",))


class DLA(TimmBackbone):
    """timm's DLA; its levels 2 to 5 are res2 to res5.

    The released networks also have a ``project`` in trees of more than one level, whose output is discarded; timm omits
    it, and its weights are not used (DLA-34: 41,728 parameters, DLA-60: 297,472).

    Args:
        depth (int): 34, 60, 102 or 169.
        in_channels (int): channels of the image.
        **kwargs: ``out_features``, ``norm`` and ``freeze_at`` of :class:`TimmBackbone`.

    Raises:
        ValueError: if the depth is another; see also :class:`TimmBackbone`.
    """

    def __init__(self, depth: int = 34, *, in_channels: int = 3, **kwargs: Any):
        check_one_of("depth", depth, _DEPTHS)
        body = timm.create_model(
            f"dla{depth}", pretrained=False, features_only=True, out_indices=(2, 3, 4, 5), in_chans=in_channels
        )
        super().__init__(body, feature_channels(body), stages=_STAGES, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec, out_features: Sequence[str] = tuple(STRIDES)) -> "DLA":
        """Build from ``cfg.MODEL.DLA``, for an image of ``input_shape`` (ShapeSpec)."""
        check_choice(cfg, "MODEL.DLA.DEPTH", _DEPTHS)
        check_shared_keys(cfg, out_features, "MODEL.DLA.NORM")
        return cls(
            cfg.MODEL.DLA.DEPTH,
            in_channels=input_shape.channels,
            out_features=out_features,
            norm=cfg.MODEL.DLA.NORM,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
