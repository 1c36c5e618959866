"""Any timm network with feature maps of strides 4 to 32, by name."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor

from dynpose.config import blame, check_from_0_to_1

from .timm_backbone import STRIDES, TimmBackbone, check_shared_keys


class Timm(TimmBackbone):
    """A timm network by name, with the outputs of ``features_only`` at strides 4, 8, 16 and 32.

    HRNet, DLA and Swin have separate classes, which freeze layers that no output depends on and also load the files of
    the original releases. A network for a single image size, like most transformers, does not accept other sizes.

    Args:
        name (str): from ``timm.list_models()``, such as "convnext_tiny".
        in_channels (int): channels of the image.
        drop_path_rate (float): stochastic depth, the rate of the last block; 0 = none.
        freeze_at (int): see :class:`TimmBackbone`. The modules before the one that outputs res2 are the stem.
        **kwargs: ``out_features`` and ``norm`` of :class:`TimmBackbone`.

    Raises:
        ValueError: if timm has no such network, or the network lacks these feature maps, stochastic depth, or separable
            stages to freeze; see also :class:`TimmBackbone`.

    Example::

        >>> maps = Timm("convnext_atto")(torch.zeros(1, 3, 64, 96))
        >>> maps["res2"].shape
        torch.Size([1, 40, 16, 24])
    """

    def __init__(
        self, name: str, *, in_channels: int = 3, drop_path_rate: float = 0.0, freeze_at: int = 0, **kwargs: Any
    ):
        body = _create(name, in_channels, drop_path_rate)
        info = body.feature_info
        # the last map of each stride
        index_of = {reduction: index for index, reduction in enumerate(info.reduction())}
        if not set(STRIDES.values()) <= set(index_of):
            raise ValueError(
                f"name: the feature maps of {name!r} have strides {', '.join(map(str, info.reduction()))}; choose a "
                "network with 4, 8, 16 and 32"
            )
        indices = [index_of[stride] for stride in STRIDES.values()]
        outputs = [info.module_name()[index] for index in indices]
        stages = _stages(body, outputs) if freeze_at > 0 else ()
        channels = [info.channels()[index] for index in indices]
        super().__init__(body, channels, stages=stages, freeze_at=freeze_at, **kwargs)
        self.name = name
        self._indices = dict(zip(STRIDES, indices))
        self._is_channels_last = getattr(body, "output_fmt", None) == "NHWC"

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec, out_features: Sequence[str] = tuple(STRIDES)) -> "Timm":
        """Build from ``cfg.MODEL.TIMM``, for an image of ``input_shape`` (ShapeSpec)."""
        check_from_0_to_1(cfg, "MODEL.TIMM.DROP_PATH_RATE")
        check_shared_keys(cfg, out_features, "MODEL.TIMM.NORM")
        # the remaining checks depend on the network: whether timm has it, with stochastic depth and stages
        with blame("MODEL.TIMM.NAME", "MODEL.TIMM.DROP_PATH_RATE", "MODEL.BACKBONE.FREEZE_AT"):
            return cls(
                cfg.MODEL.TIMM.NAME,
                in_channels=input_shape.channels,
                drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
                out_features=out_features,
                norm=cfg.MODEL.TIMM.NORM,
                freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
            )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps, as :meth:`TimmBackbone.forward`."""
        maps = self.body(images)
        chosen = {name: maps[self._indices[name]] for name in self._out_features}
        if self._is_channels_last:
            return {name: value.permute(0, 3, 1, 2).contiguous() for name, value in chosen.items()}
        return chosen

    def timm_keys(self) -> dict[str, str | None]:
        """Map the parameter names of timm's full network to those in ``body``.

        timm joins the names of modules that ``features_only`` takes out of a container: stages.0 becomes stages_0.

        Returns:
            dict[str, str | None]: None for parameters after the feature maps, such as the classifier's.
        """
        with torch.device("meta"):
            whole = timm.create_model(self.name, pretrained=False)
        ours = {_joined(key): key for key in self.body.state_dict()}
        return {key: ours.get(_joined(key)) for key in whole.state_dict()}


def _create(name, in_channels, drop_path_rate):
    if not timm.is_model(name):
        raise ValueError(f"name: timm {timm.__version__} has no network {name!r}; see timm.list_models()")
    options = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    try:
        return timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels, **options)
    except TypeError as error:
        if not options:
            raise
        raise ValueError(
            f"drop_path_rate: expected 0 for {name}, which has no stochastic depth ({error}), got {drop_path_rate}"
        ) from error
    except RuntimeError as error:  # a network without a feature extractor
        raise ValueError(f"name: timm gives no feature maps of {name!r} ({error})") from error


def _stages(body, outputs):
    """Split a network at its outputs.

    Args:
        body (nn.Module): the network.
        outputs (list[str]): timm's names of the modules that output res2, res3, res4 and res5.

    Returns:
        list[list[str]]: submodules of the stem, of res2, and between each output and the next.
    """
    outputs = [_joined(name) for name in outputs]
    units = _units("", body, outputs)
    names = [_joined(unit) for unit in units]
    missing = [name for name in outputs if name not in names]
    if missing:
        raise ValueError(f"freeze_at: expected 0 for this network, which has no submodule {missing[0]}")
    positions = [names.index(name) for name in outputs]
    bounds = [0, positions[0], *(position + 1 for position in positions)]
    return [units[start:end] for start, end in pairwise(bounds)]


def _units(prefix, module, outputs):
    """Children in order; a child that contains an output is replaced by its children."""
    units = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        is_wrapper = path == "model"
        if is_wrapper or any(output.startswith(f"{_joined(path)}_") for output in outputs):
            units += _units(f"{path}.", child, outputs)
        else:
            units.append(path)
    return units


def _joined(key):
    return key.removeprefix("model.").replace(".", "_")
