"""Finding a config's file, loading it or building its model, by name."""

import os
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, find_config_file, load_config
from dynpose.data import register_datasets_for_schema
from dynpose.modeling.build import build_model


def get_config_file(name: str) -> str:
    """Find the file of a config.

    Args:
        name (str): such as "FCPose/R_50_3x.yaml" or, for a lazy config, "FCPose/R_50_3x.py", relative to dynpose's
            ``configs/``; or the path of a file.

    Returns:
        str: the path of the file.

    Raises:
        ConfigError: there is no such config or file; the message lists similar names.
    """
    return find_config_file(name)


def get_config(name: str, trained: bool = False, opts: Sequence[str] = ()) -> CfgNode | DictConfig:
    """Load a config.

    Args:
        name (str): see :func:`get_config_file`.
        trained (bool): the config is for a trained model: MODEL.WEIGHTS (``train.init_checkpoint`` of a lazy config)
            must be a local file.
        opts (Sequence[str]): overrides, KEY VALUE KEY VALUE ... or, of a lazy config, key=value ...

    Returns:
        CfgNode | DictConfig: not frozen; a DictConfig for a lazy config. With ``trained=False``, the weights are those
        that training starts from.

    Raises:
        ConfigError: there is no such config, an override is invalid, or with ``trained=True`` the weights are not a
            local file.

    Example::

        >>> get_config("FCPose/R_50_3x.yaml").MODEL.META_ARCHITECTURE
        'FCPose'
    """
    path = get_config_file(name)
    if _is_lazy(path):
        cfg = _apply_overrides(LazyConfig.load(path), opts)
        key = "train.init_checkpoint"
        weights = OmegaConf.select(cfg, key, default="")
    else:
        cfg = load_config(path, opts)
        key, weights = "MODEL.WEIGHTS", cfg.MODEL.WEIGHTS
    if trained and not os.path.isfile(weights):
        raise ConfigError(
            f"{name}: dynpose has no trained weights for this config ({key} is {weights!r}, which is not a local "
            f"file); download or train them, and set {key} to their path"
        )
    return cfg


def get(name: str, trained: bool = False, device: str | None = None, opts: Sequence[str] = ()) -> nn.Module:
    """Build the model of a config.

    Unlike in detectron2, an untrained model is randomly initialised: no backbone weights are downloaded.

    Args:
        name (str): see :func:`get_config_file`.
        trained (bool): load the weights of the config, dynpose's or released ones, which must be complete.
        device (str | None): overrides MODEL.DEVICE (``train.device`` of a lazy config); None = that device, or the CPU
            if there is no GPU.
        opts (Sequence[str]): see :func:`get_config`.

    Returns:
        nn.Module: the model, in training mode.

    Raises:
        ConfigError: see :func:`get_config`.
        CheckpointError: the weights are of another model or incomplete.

    Example::

        >>> model = get("FCPose/R_50_3x_release.yaml", trained=True, opts=["MODEL.WEIGHTS", "fcpose50.pth"])
    """
    cfg = get_config(name, trained, opts)
    if _is_lazy(name):
        return _get_lazy(cfg, trained, device)
    if device is not None or not torch.cuda.is_available():
        cfg.MODEL.DEVICE = device or "cpu"
    register_datasets_for_schema(cfg)
    model = build_model(cfg)
    if trained:
        PoseCheckpointer(model, complete=True, class_names=cfg.MODEL.CLASS_NAMES).load(cfg.MODEL.WEIGHTS)
    return model


def _is_lazy(name):
    return name.endswith(".py")


def _apply_overrides(cfg, opts):
    """Apply key=value overrides to a lazy config."""
    try:
        return LazyConfig.apply_overrides(cfg, list(opts))
    except Exception as error:  # hydra's and omegaconf's errors have no common base class
        raise ConfigError(f"overrides {' '.join(opts)}: {' '.join(str(error).split())}") from error


def _get_lazy(cfg, trained, device):
    """Build the model of a lazy config."""
    model = instantiate(cfg.model)
    if trained:
        # a lazy config has no class names to compare the weights with
        PoseCheckpointer(model, complete=True).load(cfg.train.init_checkpoint)
    if device is None and torch.cuda.is_available():
        device = OmegaConf.select(cfg, "train.device")
    return model.to(device or "cpu")
