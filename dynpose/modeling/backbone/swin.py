"""Swin Transformer (Liu et al., ICCV 2021) for images of any size."""

from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from dynpose.config import check_at_least_one, check_choice, check_from_0_to_1
from dynpose.utils.arguments import check_one_of

from .timm_backbone import STRIDES, TimmBackbone, check_shared_keys

_STAGES = (("patch_embed",), ("layers.0",), ("layers.1",), ("layers.2",), ("layers.3",))
_SIZES = ("tiny", "small", "base", "large")


class Swin(TimmBackbone):
    """timm's Swin; its stages are res2 to res5, each followed by a LayerNorm as in Swin's detectors.

    The windows of the last stage are also shifted, for which timm's input of 224 pixels is too small. The final norm of
    the classifier is omitted.

    Args:
        size (str): "tiny", "small", "base" or "large".
        window_size (int): side of the attention windows in patches: 7, or 12 for weights trained at 384 pixels.
        drop_path_rate (float): stochastic depth, the rate of the last block.
        in_channels (int): channels of the image.
        **kwargs: ``out_features`` and ``freeze_at`` of :class:`TimmBackbone`.

    Raises:
        ValueError: if the size is another; see also :class:`TimmBackbone`.
    """

    def __init__(
        self,
        size: str = "large",
        *,
        window_size: int = 7,
        drop_path_rate: float = 0.2,
        in_channels: int = 3,
        **kwargs: Any,
    ):
        check_one_of("size", size, _SIZES)
        body = timm.create_model(
            f"swin_{size}_patch4_window7_224",
            pretrained=False,
            num_classes=0,
            in_chans=in_channels,
            window_size=window_size,
            drop_path_rate=drop_path_rate,
            strict_img_size=False,
            always_partition=True,
        )
        body.norm = nn.Identity()
        for module in body.modules():
            if isinstance(module, SwinTransformerBlock):
                module.__class__ = PaddedSwinBlock
        channels = [info["num_chs"] for info in cast(SwinTransformer, body).feature_info]
        super().__init__(body, channels, stages=_STAGES, **kwargs)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(shape.channels) for name, shape in self.output_shape().items()})

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec, out_features: Sequence[str] = tuple(STRIDES)) -> "Swin":
        """Build from ``cfg.MODEL.SWIN``, for an image of ``input_shape`` (ShapeSpec)."""
        check_choice(cfg, "MODEL.SWIN.SIZE", _SIZES)
        check_at_least_one(cfg, "MODEL.SWIN.WINDOW_SIZE")
        check_from_0_to_1(cfg, "MODEL.SWIN.DROP_PATH_RATE")
        check_shared_keys(cfg, out_features)
        return cls(
            cfg.MODEL.SWIN.SIZE,
            window_size=cfg.MODEL.SWIN.WINDOW_SIZE,
            drop_path_rate=cfg.MODEL.SWIN.DROP_PATH_RATE,
            in_channels=input_shape.channels,
            out_features=out_features,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps, as :meth:`TimmBackbone.forward`."""
        maps = self.body.get_submodule("patch_embed")(images)
        outputs = {}
        for name, stage in zip(STRIDES, self.body.get_submodule("layers").children()):
            maps = stage(maps)
            if name in self.norms:
                outputs[name] = self.norms[name](maps).permute(0, 3, 1, 2).contiguous()
        return outputs


class PaddedSwinBlock(SwinTransformerBlock):
    """timm's block, corrected for maps whose size is not a multiple of the window.

    timm pads after the cyclic shift, so its mask, made for the padded map, does not separate the rows and columns that
    the shift wraps around (timm issue 2438). Here, the map is padded first. All sizes are multiples of a number of
    windows, from which an exporter derives that the windows tile the map.
    """

    def _attn(self, x):
        batch, height, width, channels = x.shape
        # rounded up without a negative number: torch.onnx writes a floor division as one that truncates
        rows, columns = ((size + side - 1) // side for size, side in zip((height, width), self.window_size))
        padded_height, padded_width = rows * self.window_size[0], columns * self.window_size[1]
        x = F.pad(x, (0, 0, 0, padded_width - width, 0, padded_height - height))
        is_shifted = any(self.shift_size)
        if is_shifted:
            x = x.roll((-self.shift_size[0], -self.shift_size[1]), dims=(1, 2))
        windows = self._windows(x, rows, columns).reshape(batch * rows * columns, self.window_area, channels)
        mask = self._mask(rows, columns, x) if is_shifted else None
        attended = self.attn(windows, mask=mask).reshape(batch, rows, columns, *self.window_size, channels)
        x = attended.transpose(2, 3).reshape(batch, padded_height, padded_width, channels)
        if is_shifted:
            x = x.roll(self.shift_size, dims=(1, 2))
        return x[:, :height, :width]

    def _windows(self, maps, rows, columns):
        """Divide maps (B, rows h, columns w, C) into windows (B, rows, columns, h, w, C)."""
        height, width = self.window_size
        return maps.reshape(maps.shape[0], rows, height, columns, width, maps.shape[3]).transpose(2, 3)

    def _mask(self, rows, columns, like):
        """timm's mask of the shifted map: -100 between cells that are neighbours only by the shift, else 0."""
        regions = [
            _region(number * side, side, shift, like.device)
            for number, side, shift in zip((rows, columns), self.window_size, self.shift_size)
        ]
        region = 3 * regions[0][:, None] + regions[1]
        region = self._windows(region[None, :, :, None], rows, columns).reshape(rows * columns, self.window_area)
        is_other = region[:, None] != region[:, :, None]
        return torch.where(is_other, -100.0, 0.0).to(like.dtype)


def _region(length, window, shift, device):
    """Parts of a shifted axis, (length,): 0 before the last window, 1 until the shift, 2 for the wrapped cells."""
    place = torch.arange(length, device=device)
    return (place >= length - window).to(torch.int64) + (place >= length - shift).to(torch.int64)
