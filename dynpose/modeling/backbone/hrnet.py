"""HRNet (Wang et al., TPAMI 2020): four parallel branches, at strides 4, 8, 16 and 32."""

from collections.abc import Sequence
from typing import Any

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from dynpose.config import check_choice
from dynpose.utils.arguments import check_one_of

from .timm_backbone import STRIDES, TimmBackbone, check_shared_keys, feature_channels

_WIDTHS = (18, 30, 32, 40, 44, 48, 64)

_STAGES = (
    ("conv1", "bn1", "conv2", "bn2"),
    ("layer1",),
    ("transition1", "stage2"),
    ("transition2", "stage3"),
    ("transition3", "stage4"),
)


class HRNet(TimmBackbone):
    """timm's HRNet; its branches are res2 (``width`` channels), res3 (twice as many), res4 and res5.

    The branches of the last module are fused into all four outputs. The layers of outputs that are not in
    ``out_features`` are frozen, since they get no gradient (DistributedDataParallel would wait for it).

    Args:
        width (int): channels of the finest branch: 18, 30, 32, 40, 44, 48 or 64.
        in_channels (int): channels of the image.
        **kwargs: ``out_features``, ``norm`` and ``freeze_at`` of :class:`TimmBackbone`.

    Raises:
        ValueError: if the width is another; see also :class:`TimmBackbone`.

    Example::

        >>> maps = HRNet(32)(torch.zeros(1, 3, 64, 96))
        >>> maps["res2"].shape
        torch.Size([1, 32, 16, 24])
    """

    def __init__(self, width: int = 32, *, in_channels: int = 3, **kwargs: Any):
        check_one_of("width", width, _WIDTHS)
        body = timm.create_model(
            f"hrnet_w{width}",
            pretrained=False,
            features_only=True,
            feature_location="",
            out_indices=(1, 2, 3, 4),
            in_chans=in_channels,
        )
        super().__init__(body, feature_channels(body), stages=_STAGES, **kwargs)
        *_, last_module = self.body.get_submodule("stage4").children()
        for branch, fuse in zip(STRIDES, last_module.get_submodule("fuse_layers").children()):
            if branch not in self._out_features:
                fuse.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec, out_features: Sequence[str] = tuple(STRIDES)) -> "HRNet":
        """Build from ``cfg.MODEL.HRNET``, for an image of ``input_shape`` (ShapeSpec)."""
        check_choice(cfg, "MODEL.HRNET.WIDTH", _WIDTHS)
        check_shared_keys(cfg, out_features, "MODEL.HRNET.NORM")
        return cls(
            cfg.MODEL.HRNET.WIDTH,
            in_channels=input_shape.channels,
            out_features=out_features,
            norm=cfg.MODEL.HRNET.NORM,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
