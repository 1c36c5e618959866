"""Loading a complete config from a file name and overrides."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from .defaults import add_dynpose_config
from .errors import ConfigError
from .files import find_config_file, find_named_config, suggest_names


def load_config(config_file: str | os.PathLike[str] = "", opts: Sequence[str] = ()) -> CfgNode:
    """Read a config.

    Args:
        config_file (str | PathLike): a YAML file, or the name of a config that comes with dynpose, such as
            "FCPose/R_50_3x.yaml"; "" = the defaults alone. Likewise, ``_BASE_`` in a file is a path relative to that
            file, or a name.
        opts (Sequence[str]): overrides, KEY VALUE KEY VALUE ...

    Returns:
        CfgNode: detectron2's and dynpose's keys, not frozen.

    Raises:
        ConfigError: the file is missing, invalid or a lazy config, or a key or a value is not valid.

    Example::

        >>> load_config("FCPose/R_50_1x.yaml", ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE
        'cpu'
    """
    cfg = get_cfg()
    add_dynpose_config(cfg)
    if config_file:
        path = find_config_file(config_file)
        if path.endswith(".py"):
            raise ConfigError(f"{config_file}: a lazy config; load it with dynpose.model_zoo.get_config")
        reader = _FileReader()
        # It shares the config's nodes: copying and merging all of them takes longer than reading the file
        reader.update(cfg)
        reader.__dict__[CfgNode.DEPRECATED_KEYS] = cfg.__dict__[CfgNode.DEPRECATED_KEYS]
        _merge(cfg, reader.merge_from_file, path, config_file)
        cfg.update(reader)
    if len(opts) % 2:
        raise ConfigError(f"Overrides must be KEY VALUE pairs, got {len(opts)} words: {' '.join(opts)}")
    _merge(cfg, cfg.merge_from_list, list(opts), "command line")
    return cfg


class _FileReader(CfgNode):
    """A CfgNode that reads files strictly, and finds their bases by name as well as by path.

    detectron2's CfgNode executes code that a file asks for, with a warning, and downloads bases that are URLs.
    """

    # The nodes that it makes are plain, as those that it shares with a config: yacs merges nodes of the same type only
    _create_config_tree_from_dict = CfgNode._create_config_tree_from_dict
    _decode_cfg_value = CfgNode._decode_cfg_value

    @classmethod
    def load_yaml_with_base(cls, filename, allow_unsafe=False):
        """Read a file and its bases."""
        return _read(filename)


def read_yaml(path: str | os.PathLike[str], *, remedy: str = "write KEY: value") -> dict[Any, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path (str | PathLike)
        remedy (str): for the message if the file is empty or holds something else.

    Returns:
        dict: its content, with plain YAML types.

    Raises:
        ConfigError: the file is missing, not YAML, empty or not a mapping, or repeats a key (the last would silently
            win).
    """
    try:
        with open(path, encoding="utf-8") as f:
            content = yaml.load(f, _UniqueKeyLoader)
    except RecursionError:
        raise ConfigError(f"{path}: values are nested too deeply to be read; correct the file") from None
    except OSError as error:
        raise ConfigError(f"{path}: it can't be read ({error.strerror or error}); correct the path") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; correct the file") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise ConfigError(f"{path}: the file {found}; {remedy}")
    return content


def _read(path, including=()):
    """Read a file and its bases.

    Args:
        path (str)
        including (tuple[str]): absolute paths of the files that led to this one.

    Returns:
        dict: the keys of the bases, overridden by those of the file.

    Raises:
        ConfigError: a file is missing, empty or not a mapping, repeats a key (the last would silently win), or is based
            on itself or on a URL.
    """
    absolute = os.path.abspath(path)
    chain = (*including, absolute)
    if absolute in including:
        raise ConfigError(f"{path}: _BASE_ leads back to the file itself: {' -> '.join(chain)}; remove one of them")
    content = read_yaml(path, remedy="write KEY: value, or omit the config file")
    bases = content.pop("_BASE_", ())
    merged = {}
    for base in bases if isinstance(bases, (list, tuple)) else [bases]:
        _override(merged, _read(_find_base(path, base), chain), path)
    _override(merged, content, path)
    return merged


def _find_base(path, base):
    """Find the file that ``_BASE_`` of a file refers to."""
    if not isinstance(base, str):
        raise ConfigError(f"{path}: _BASE_ is {base!r}; write the path or the name of a config")
    if "://" in base:
        raise ConfigError(f"{path}: _BASE_ {base} is a URL, which is not read; download the file")
    relative = os.path.join(os.path.dirname(path), os.path.expanduser(base))
    found = relative if os.path.exists(relative) else find_named_config(base)
    if found is None:
        raise ConfigError(f"{path}: _BASE_ {base} does not exist; {suggest_names(base) or 'correct the path'}")
    return found


def _override(content, overrides, path):
    """Merge overrides into a mapping, in place."""
    for key, value in overrides.items():
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is not a name but a {type(key).__name__}; keys are names")
        if isinstance(value, dict):
            # A copy, as an anchor may share the mapping with other keys
            inner = content.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path}: {key} holds keys, but a value in the file it is based on; correct the file")
            _override(inner, value, path)
        else:
            content[key] = value


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping with a repeated key, as YAML's specification does (section 3.2.1.3)."""

    def construct_mapping(self, node, deep=False):
        """Construct a mapping of unique keys; keys merged in by ``<<`` may be overridden."""
        nodes = [key for key, _ in node.value if key.tag != _MERGE_TAG]
        written = [self.construct_object(key, deep=True) for key in nodes]
        for i, key in enumerate(written):
            if key in written[:i]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice in one mapping", nodes[i].start_mark
                )
        return super().construct_mapping(node, deep)


_MERGE_TAG = "tag:yaml.org,2002:merge"


def _merge(cfg, merge, argument, source):
    try:
        merge(argument)
    except ConfigError:  # from reading the file
        raise
    except Exception as error:
        # yacs raises KeyError (file) or AssertionError (list) for keys, ValueError for values; PyYAML has its own
        message = error.args[0] if isinstance(error, KeyError) else str(error)
        if message.startswith("Non-existent"):
            key = message.split(": ")[-1].strip()
            message = f"unknown config key {key}{_suggestion(cfg, key)}"
        raise ConfigError(f"{source}: {_short(message)}") from error


def _short(message, longest=400):
    """Cut the middle out of a long message, where yacs puts whole parts of the config."""
    half = longest // 2
    return message if len(message) <= longest else f"{message[:half]} ... {message[-half:]}"


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
