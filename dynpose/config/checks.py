"""Checks of config values, so that a wrong value is reported when the model is built and not during training.

Each check takes a config and full key names, and raises a :class:`ConfigError` that names the key, its value and the
allowed values. If a value is a list, each of its numbers is checked. Components check their arguments under the
argument names and raise ValueError; :func:`blame` maps such an error to the config key.
"""

import contextlib
import math
import numbers
from collections.abc import Collection, Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import get_norm

from .errors import ConfigError


@contextlib.contextmanager
def blame(*keys: str) -> Iterator[None]:
    """Turn a ValueError into a ConfigError that names the keys behind the faulty arguments.

    For faults that depend on more than the config, such as the shapes of a backbone or the keypoints of a schema, and
    that the component itself detects.

    Args:
        *keys (str): full names.

    Raises:
        ConfigError: the keys, then the message of the ValueError. A ConfigError passes unchanged.

    Example::

        >>> with blame("MODEL.INSPOSE.MAP_STRIDE"):
        ...     check_map_stride(12, stride=8)
    """
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{', '.join(keys)}: {error}") from error


def check_positive(cfg: CfgNode, *keys: str) -> None:
    """Numbers above 0."""
    _check_numbers(cfg, keys, lambda value: value > 0, "above 0")


def check_not_negative(cfg: CfgNode, *keys: str) -> None:
    """Numbers of at least 0."""
    _check_numbers(cfg, keys, lambda value: value >= 0, "at least 0")


def check_at_least_one(cfg: CfgNode, *keys: str) -> None:
    """Numbers of at least 1."""
    _check_numbers(cfg, keys, lambda value: value >= 1, "at least 1")


def check_between_0_and_1(cfg: CfgNode, *keys: str) -> None:
    """Numbers between 0 and 1, both excluded."""
    _check_numbers(cfg, keys, lambda value: 0 < value < 1, "between 0 and 1, both excluded")


def check_from_0_to_1(cfg: CfgNode, *keys: str) -> None:
    """Numbers from 0 to 1, both included."""
    _check_numbers(cfg, keys, lambda value: 0 <= value <= 1, "from 0 to 1")


def check_at_most_1(cfg: CfgNode, *keys: str) -> None:
    """Score thresholds of at most 1; a negative threshold is below every score."""
    _check_numbers(cfg, keys, lambda value: value <= 1, "at most 1")


def check_focal_alpha(cfg: CfgNode, *keys: str) -> None:
    """Alphas of fvcore's focal loss: from 0 to 1, or -1 for none."""
    _check_numbers(cfg, keys, lambda value: 0 <= value <= 1 or value == -1, "from 0 to 1, or -1 for none")


def check_odd(cfg: CfgNode, *keys: str) -> None:
    """Odd sizes of at least 1, such as those of convolution kernels with a centre cell."""
    _check_numbers(cfg, keys, lambda value: value >= 1 and value % 2 == 1, "odd and at least 1")


def check_increasing(cfg: CfgNode, *keys: str) -> None:
    """Strictly increasing lists of numbers above 0."""
    check_positive(cfg, *keys)
    for key in keys:
        values = read_key(cfg, key)
        if any(second <= first for first, second in zip(values, values[1:])):
            raise ConfigError(f"{key} must be strictly increasing, got {values}")


def check_length(cfg: CfgNode, key: str, length: int) -> None:
    """A list of ``length`` values."""
    values = read_key(cfg, key)
    if len(values) != length:
        raise ConfigError(f"{key} must have {length} values, got {list(values)}")


def check_choice(cfg: CfgNode, key: str, choices: Collection[str | int]) -> None:
    """One of ``choices``."""
    value = read_key(cfg, key)
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_image_format(cfg: CfgNode) -> None:
    """INPUT.FORMAT: one that detectron2's ``detection_utils.read_image`` supports."""
    check_choice(cfg, "INPUT.FORMAT", ("BGR", "RGB", "L", "YUV-BT.601"))


def check_choices(cfg: CfgNode, key: str, choices: Collection[str | int]) -> None:
    """A list of one or more of ``choices``, each at most once."""
    values = read_key(cfg, key)
    if not values or any(value not in choices for value in values) or len(set(values)) < len(values):
        raise ConfigError(f"{key} must name one or more of {', '.join(map(repr, choices))}, got {list(values)}")


def check_norm(cfg: CfgNode, key: str, channels: int) -> None:
    """A normalisation that detectron2's ``get_norm`` supports, for layers with ``channels`` channels.

    Args:
        cfg (CfgNode): the config.
        key (str): key that holds the name of the normalisation.
        channels (int): channels of the layers.
    """
    norm = read_key(cfg, key)
    try:
        get_norm(norm, channels)
    except KeyError:
        raise ConfigError(
            f"{key} must be 'GN', 'BN', 'SyncBN' or 'FrozenBN' (or another name that detectron2's get_norm supports), "
            f"or '' for none, got {norm!r}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{key} {norm!r} does not support layers of {channels} channels: {error}") from error


def read_key(cfg: CfgNode, key: str) -> Any:
    """Read the value of a key by its full name, such as MODEL.FCOS.NORM."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _check_numbers(cfg, keys, is_allowed, allowed):
    for key in keys:
        value = read_key(cfg, key)
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(number, numbers.Real) or not math.isfinite(number) or not is_allowed(number):
                raise ConfigError(f"{key} must be {allowed}, got {value!r}")
