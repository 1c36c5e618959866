"""From the name of a config to its file, its config or its model."""

import os

import torch
from detectron2.modeling import build_model

from dynpose import modeling  # noqa: F401  registers the meta-architectures
from dynpose.checkpoint import PoseCheckpointer
from dynpose.config import ConfigError, find_config_file, load_config
from dynpose.data import register_datasets_for_schema


def get_config_file(name):
    """Find the file of a config.

    Args:
        name (str): such as "FCPose/R_50_3x.yaml", relative to dynpose's ``configs/``; or the path of a file.

    Returns:
        str: the path of the file.

    Raises:
        ConfigError: it is neither; the message lists similar names.
    """
    return find_config_file(name)


def get_config(name, trained=False, opts=()):
    """Load a config.

    Args:
        name (str): see :func:`get_config_file`.
        trained (bool): the config is for a trained model: MODEL.WEIGHTS must be a local file.
        opts (Sequence[str]): overrides, KEY VALUE KEY VALUE ...

    Returns:
        CfgNode: not frozen. With ``trained=False``, MODEL.WEIGHTS is what training starts from.

    Raises:
        ConfigError: there is no such config, an override is wrong, or with ``trained=True`` MODEL.WEIGHTS is not a
            local file.

    Example::

        >>> get_config("FCPose/R_50_3x.yaml").MODEL.META_ARCHITECTURE
        'FCPose'
    """
    cfg = load_config(get_config_file(name), opts)
    if trained and not os.path.isfile(cfg.MODEL.WEIGHTS):
        raise ConfigError(
            f"{name}: dynpose has no trained weights for this config (MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS!r}, which is "
            "not a local file); download or train them, and set MODEL.WEIGHTS to their path"
        )
    return cfg


def get(name, trained=False, device=None, opts=()):
    """Build the model of a config.

    Unlike detectron2's, an untrained model is initialised at random: no weights of a backbone are downloaded.

    Args:
        name (str): see :func:`get_config_file`.
        trained (bool): load MODEL.WEIGHTS, dynpose's weights or released ones, which must be complete.
        device (str | None): takes the place of MODEL.DEVICE; None = MODEL.DEVICE, or the CPU where there is no GPU.
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
    if device is not None or not torch.cuda.is_available():
        cfg.MODEL.DEVICE = device or "cpu"
    register_datasets_for_schema(cfg)
    model = build_model(cfg)
    if trained:
        PoseCheckpointer(model, complete=True, class_names=cfg.MODEL.CLASS_NAMES).load(cfg.MODEL.WEIGHTS)
    return model
