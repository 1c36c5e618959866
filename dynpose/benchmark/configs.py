"""The compared configs, detectron2's Keypoint R-CNN as their peer, and models with random weights."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynpose.config import ConfigError
from dynpose.data import register_datasets_for_schema
from dynpose.methods import load_methods
from dynpose.modeling.build import build_model

PEER_NAME = "Keypoint R-CNN R-50-FPN"
PEER_CONFIG = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml"

# height and width of the image that sets the statistics of normalisation, pixels
SETTLING_SIZE = (256, 256)


@dataclass(frozen=True)
class ComparedConfig:
    """A compared config; its model is built when needed.

    Attributes:
        name: for the tables.
        cfg: of the model.
        architecture: the class of the meta-architecture. Unpickling it in another process imports its module, which
            registers a method from outside the package there.

    Raises:
        ConfigError: the meta-architecture is not registered; raised before any measurement.
    """

    name: str
    cfg: CfgNode
    architecture: type = field(init=False)

    def __post_init__(self):
        load_methods()
        name = self.cfg.MODEL.META_ARCHITECTURE
        if name not in META_ARCH_REGISTRY:
            raise ConfigError(f"{self.name}: MODEL.META_ARCHITECTURE {name!r} is not registered in detectron2")
        object.__setattr__(self, "architecture", META_ARCH_REGISTRY.get(name))


class Names:
    """Unique names of configs: "(2)" and so on is appended to a repeated name."""

    def __init__(self):
        self._given = Counter()

    def __call__(self, cfg: CfgNode, file: str, suffix: str = "") -> str:
        """Name a config by its meta-architecture, its file and a suffix."""
        name = f"{cfg.MODEL.META_ARCHITECTURE} {Path(file).stem}{suffix}"
        self._given[name] += 1
        return name if self._given[name] == 1 else f"{name} ({self._given[name]})"


def without_folders(words: Sequence[str]) -> list[str]:
    """Shorten overrides for a report, since a value may be a path."""
    return [Path(word).name for word in words]


def peer_config() -> CfgNode:
    """Read detectron2's config of Keypoint R-CNN."""
    return model_zoo.get_config(PEER_CONFIG, trained=False)


def on_device(cfg: CfgNode, device: torch.device) -> CfgNode:
    """A copy of a config that names the device."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = str(device)
    return cfg


def build_random(cfg: CfgNode, device: torch.device) -> nn.Module:
    """Build a model with the same random weights every time."""
    cfg = on_device(cfg, device)
    if "KEYPOINT_SCHEMA" in cfg.MODEL:  # not in detectron2's own configs
        register_datasets_for_schema(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(cfg)


@contextlib.contextmanager
def settling_norms(model: nn.Module) -> Iterator[None]:
    """While entered, set the statistics of batch normalisation from the activations, layer by layer.

    They are not set in an untrained network. Its activations then grow from block to block until a softmax overflows,
    which makes detectron2's Keypoint R-CNN fail.
    """

    def settle(module, inputs):
        (maps,) = inputs
        if maps.numel() > maps.shape[1]:
            module.running_mean.copy_(maps.mean(dim=(0, 2, 3)))
            module.running_var.copy_(maps.var(dim=(0, 2, 3), unbiased=False))

    norms = [module for module in model.modules() if isinstance(module, (FrozenBatchNorm2d, _BatchNorm))]
    handles = [module.register_forward_pre_hook(settle) for module in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
