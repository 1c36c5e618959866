"""From a file name and overrides to a complete config."""

import difflib
import functools
import os

import yaml
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
        _check_files(config_file)
        # detectron2's default is to run whatever a file asks for, with a warning
        merge_file = functools.partial(cfg.merge_from_file, allow_unsafe=False)
        _merge(cfg, merge_file, config_file, config_file)
    if len(opts) % 2:
        raise ConfigError(f"Overrides must be KEY VALUE pairs, got {len(opts)} words: {' '.join(opts)}")
    _merge(cfg, cfg.merge_from_list, list(opts), "command line")
    return cfg


def _check_files(config_file, including=()):
    """Look at a file and those that it is based on, for what PyYAML and fvcore pass over or meet with a raw error.

    Raises:
        ConfigError: a file is missing, empty or no mapping, names a key twice (the last would win in silence), is based
            on itself, or on a URL (it would be requested).
    """
    path = os.path.abspath(config_file)
    chain = (*including, path)
    if path in including:
        raise ConfigError(f"{config_file}: _BASE_ leads back to the file itself: {' -> '.join(chain)}; take one out")
    try:
        with open(path, encoding="utf-8") as f:
            content = yaml.load(f, _UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError(f"{including[-1]}: _BASE_ {config_file} does not exist; correct the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{config_file}: {' '.join(str(error).split())}; correct the file") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise ConfigError(f"{config_file}: the file {found}; write KEY: value, or leave the config file out")
    bases = content.get("_BASE_", ())
    for base in bases if isinstance(bases, (list, tuple)) else [bases]:
        if not isinstance(base, str):
            raise ConfigError(f"{config_file}: _BASE_ is {bases!r}; write the path of a config file")
        if "://" in base:
            raise ConfigError(f"{config_file}: _BASE_ {base} is a URL, which is not read; download the file")
        base = os.path.expanduser(base)
        _check_files(os.path.join(os.path.dirname(config_file), base), chain)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping with a key that occurs twice, as YAML's specification does (section 3.2.1.3)."""

    def construct_mapping(self, node, deep=False):
        """A mapping whose keys are all different; what ``<<`` merges in may be overridden."""
        written = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE_TAG]
        for i, key in enumerate(written):
            if key in written[:i]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice in one mapping", node.start_mark
                )
        return super().construct_mapping(node, deep)


_MERGE_TAG = "tag:yaml.org,2002:merge"


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
    if close:
        return f"; did you mean {close[0]}?"
    return "; dynpose/config/defaults.py lists the shared keys, dynpose/modeling/<method>/config.py those of a method"


def _keys(node, prefix=""):
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
