"""Base class of the adapters for timm's networks: output names, normalisation, frozen stages."""

from collections.abc import Sequence
from typing import cast

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import Backbone
from timm.layers import BatchNormAct2d, DropPath, convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models import FeatureInfo
from torch import Tensor, nn

from dynpose.config import blame, check_choice
from dynpose.utils.arguments import check_one_of

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}

NORMS = ("BN", "SyncBN", "FrozenBN")

_PLAIN_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class TimmBackbone(Backbone):
    """A timm network as a detectron2 backbone.

    Its outputs are named like those of detectron2's ResNet at the same strides, ``res2`` (stride 4) to ``res5``
    (stride 32), so that MODEL.FPN.IN_FEATURES has the same meaning for all. The network is the attribute ``body``, with
    timm's parameter names.

    Args:
        body (nn.Module): the network.
        channels (Sequence[int]): channels of res2, res3, res4 and res5.
        stages (Sequence[Sequence[str]]): submodules of ``body`` per stage, from the input: the stem, then those of
            res2, res3, ...; ``freeze_at`` counts these stages.
        out_features (Sequence[str]): consecutive outputs among res2..res5, finest first, ending with res5.
        norm (str): "BN", "SyncBN" or "FrozenBN" (statistics and affine parameters constant).
        freeze_at (int): as detectron2's MODEL.BACKBONE.FREEZE_AT: number of ``stages`` whose parameters and batch norms
            are frozen.

    Raises:
        ValueError: if ``out_features`` or ``norm`` are invalid.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: Sequence[int],
        *,
        stages: Sequence[Sequence[str]],
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        norm: str = "BN",
        freeze_at: int = 0,
    ):
        super().__init__()
        out_features = tuple(out_features)
        check_out_features(out_features)
        self.body = convert_norm(body, norm)
        for stage in stages[: max(freeze_at, 0)]:
            for name in stage:
                freeze(self.body, name)
        self._out_features = list(out_features)
        self._out_feature_strides = {name: STRIDES[name] for name in out_features}
        self._out_feature_channels = {
            name: count for name, count in zip(STRIDES, channels, strict=True) if name in out_features
        }

    @property
    def size_divisibility(self) -> int:
        """Divisor of the input's sides, pixels: the branches and trees add maps of several strides."""
        return STRIDES["res5"]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            images (Tensor): (B, C, H, W); H and W multiples of 32.

        Returns:
            dict[str, Tensor]: ``out_features``: (B, channels, H / stride, W / stride).
        """
        return {name: maps for name, maps in zip(STRIDES, self.body(images)) if name in self._out_features}


def feature_channels(body: nn.Module) -> list[int]:
    """Channels of each feature map of a timm network made with ``features_only``."""
    return cast(FeatureInfo, body.feature_info).channels()


def check_out_features(out_features: Sequence[str]) -> None:
    """Check the outputs of a :class:`TimmBackbone`.

    Args:
        out_features (Sequence[str]): their names.

    Raises:
        ValueError: if they are not consecutive or do not end with res5.
    """
    names = tuple(STRIDES)
    if not out_features or tuple(out_features) != names[-len(out_features) :]:
        raise ValueError(
            f"out_features: expected neighbours among {', '.join(names)} that end with res5, got {list(out_features)}"
        )


def check_shared_keys(cfg: CfgNode, out_features: Sequence[str], norm_key: str | None = None) -> None:
    """Check the keys that the ``from_config`` of all timm backbones reads.

    Args:
        cfg (CfgNode): the config.
        out_features (Sequence[str]): MODEL.FPN.IN_FEATURES, or all outputs.
        norm_key (str | None): key of the normalisation; None = the network has no batch norms.

    Raises:
        ConfigError: if a value is not a valid choice.
    """
    with blame("MODEL.FPN.IN_FEATURES"):
        check_out_features(out_features)
    if norm_key is not None:
        check_choice(cfg, norm_key, NORMS)


def convert_norm(module: nn.Module, norm: str) -> nn.Module:
    """Convert the batch norms of a network to the type that ``norm`` names.

    Args:
        module (nn.Module): has nn.BatchNorm2d, or timm's batch norm with an activation.
        norm (str): "BN", "SyncBN" or "FrozenBN".

    Returns:
        nn.Module: the modified network.

    Raises:
        ValueError: if ``norm`` is unknown.
    """
    check_one_of("norm", norm, NORMS)
    if norm == "BN":
        return module
    if norm == "SyncBN":
        return convert_sync_batchnorm(module)
    return freeze_norms(module)


def freeze_norms(module: nn.Module) -> nn.Module:
    """Convert batch norms to frozen ones, in place unless ``module`` itself is one.

    detectron2's conversion treats timm's norm with an activation (BatchNormAct2d) as a plain one and loses the
    activation.

    Args:
        module (nn.Module): the network or a part of it.

    Returns:
        nn.Module: the module or its replacement.
    """
    if isinstance(module, BatchNormAct2d):
        return freeze_batch_norm_2d(module)
    for name, child in module.named_children():
        setattr(module, name, freeze_norms(child))
    return FrozenBatchNorm2d.convert_frozen_batchnorm(module) if isinstance(module, _PLAIN_NORMS) else module


def freeze(body: nn.Module, name: str) -> None:
    """Freeze a submodule: no gradients, frozen batch norms, no stochastic depth.

    Args:
        body (nn.Module): the network, modified in place.
        name (str): the submodule's name in it.
    """
    path, _, leaf = name.rpartition(".")
    parent = body.get_submodule(path)
    module = freeze_norms(getattr(parent, leaf))
    setattr(parent, leaf, module)
    module.requires_grad_(False)
    for child in module.modules():
        if isinstance(child, DropPath):
            child.drop_prob = 0.0
