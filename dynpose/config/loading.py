"""From a file name and overrides to a complete config."""

import difflib
import functools
import os

from detectron2.config import get_cfg

from .defaults import add_dynpose_config


class ConfigError(ValueError):
    """A fault in a config; the message names the file, the key and what to do."""


def load_config(config_file="", opts=()):
    """Read a config.

    Args:
        config_file (str): YAML; "" = the defaults alone.
        opts (Sequence[str]): overrides, KEY VALUE KEY VALUE ...

    Returns:
        CfgNode: detectron2's and dynpose's keys, not frozen.

    Raises:
        ConfigError: the file is missing or broken, or a key or a value is not one the config can take.

    Example::

        >>> load_config("configs/FCPose/R_50_1x.yaml", ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE
        'cpu'
    """
    cfg = get_cfg()
    add_dynpose_config(cfg)
    if config_file:
        if not os.path.isfile(config_file):
            raise ConfigError(f"{config_file}: no such config file; those that come with dynpose are under configs/")
        # detectron2's default is to run whatever a file asks for, with a warning
        merge_file = functools.partial(cfg.merge_from_file, allow_unsafe=False)
        _merge(cfg, merge_file, config_file, config_file)
    if len(opts) % 2:
        raise ConfigError(f"Overrides must be KEY VALUE pairs, got {len(opts)} words: {' '.join(opts)}")
    _merge(cfg, cfg.merge_from_list, list(opts), "command line")
    return cfg


def _merge(cfg, merge, argument, source):
    try:
        merge(argument)
    except Exception as error:
        # yacs raises KeyError (file) or AssertionError (list) for keys, ValueError for values; PyYAML has its own
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        if message.startswith("Non-existent"):
            key = message.split(": ")[-1].strip()
            message = f"unknown config key {key}{_suggestion(cfg, key)}"
        raise ConfigError(f"{source}: {message}") from error


def _suggestion(cfg, key):
    known = list(_keys(cfg))
    close = difflib.get_close_matches(key, known, n=1)
    if not close:
        last = key.rsplit(".", 1)[-1]
        close = [name for name in known if name.rsplit(".", 1)[-1] == last][:1]
    return f"; did you mean {close[0]}?" if close else "; dynpose/config/defaults.py lists dynpose's own keys"


def _keys(node, prefix=""):
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
