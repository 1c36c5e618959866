"""Building a model from its config."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling import build_model as build_registered

from dynpose.config import ConfigError

from .base_models import check_reads_to_original

__all__ = ["build_model", "check_affine_resize", "check_meta_architecture"]


def build_model(cfg: CfgNode) -> Any:
    """Build the model of a config, like detectron2's function.

    Args:
        cfg: of one of detectron2's or dynpose's meta-architectures, or of one that the user has registered.

    Returns:
        The model (nn.Module with the attributes of its class) in training mode, on MODEL.DEVICE, without MODEL.WEIGHTS.

    Raises:
        ConfigError: a value is invalid; the message names the key.
    """
    check_meta_architecture(cfg)
    return build_registered(cfg)


def check_meta_architecture(cfg: CfgNode) -> None:
    """Check that MODEL.META_ARCHITECTURE names a registered class.

    Raises:
        ConfigError: it does not; the message lists the registered names.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {name!r} is not registered; known are "
            f"{', '.join(sorted(known for known, _ in META_ARCH_REGISTRY))}"
        )


def check_affine_resize(cfg: CfgNode) -> None:
    """Refuse ``INPUT.AFFINE_RESIZE_TEST`` for a meta-architecture that does not read ``to_original``.

    Raises:
        ConfigError: see :func:`~dynpose.modeling.base_models.check_reads_to_original`.
    """
    if cfg.INPUT.AFFINE_RESIZE_TEST:
        check_reads_to_original(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE))
