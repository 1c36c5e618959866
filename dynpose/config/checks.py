"""Checks of config values: a wrong one is found when a model is built, and not by what it does to a training.

Each takes a config and the full names of keys, and raises a :class:`ConfigError` that names the key, its value and what
is allowed. Where a value is a list, each of its numbers is checked.
"""

import math

from detectron2.layers import get_norm

from .errors import ConfigError


def check_positive(cfg, *keys):
    """Numbers above 0."""
    _check_numbers(cfg, keys, lambda value: value > 0, "above 0")


def check_not_negative(cfg, *keys):
    """Numbers of at least 0."""
    _check_numbers(cfg, keys, lambda value: value >= 0, "at least 0")


def check_at_least_one(cfg, *keys):
    """Numbers of at least 1."""
    _check_numbers(cfg, keys, lambda value: value >= 1, "at least 1")


def check_between_0_and_1(cfg, *keys):
    """Numbers between 0 and 1, which are both excluded."""
    _check_numbers(cfg, keys, lambda value: 0 < value < 1, "between 0 and 1, and neither of them")


def check_from_0_to_1(cfg, *keys):
    """Numbers between 0 and 1, which are both allowed."""
    _check_numbers(cfg, keys, lambda value: 0 <= value <= 1, "from 0 to 1")


def check_odd(cfg, *keys):
    """Sizes of convolution kernels that have a middle."""
    _check_numbers(cfg, keys, lambda value: value >= 1 and value % 2 == 1, "odd and at least 1")


def check_increasing(cfg, *keys):
    """Lists of numbers above 0, each larger than the one before."""
    check_positive(cfg, *keys)
    for key in keys:
        values = read_key(cfg, key)
        if any(second <= first for first, second in zip(values, values[1:])):
            raise ConfigError(f"{key} must increase from number to number, got {values}")


def check_choice(cfg, key, choices):
    """One of some values."""
    value = read_key(cfg, key)
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_norm(cfg, key, channels):
    """A normalisation that detectron2's ``get_norm`` knows, for layers of so many channels.

    Args:
        cfg (CfgNode): the config.
        key (str): of the name.
        channels (int): of the layers.
    """
    norm = read_key(cfg, key)
    try:
        get_norm(norm, channels)
    except KeyError:
        raise ConfigError(
            f"{key} must be 'GN', 'BN', 'SyncBN' or 'FrozenBN' (or another name that detectron2's get_norm knows), or "
            f"'' for none, got {norm!r}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{key} {norm!r} does not go with layers of {channels} channels: {error}") from error


def read_key(cfg, key):
    """The value of a key by its full name, such as MODEL.FCOS.NORM."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _check_numbers(cfg, keys, is_allowed, allowed):
    for key in keys:
        value = read_key(cfg, key)
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if not math.isfinite(number) or not is_allowed(number):
                raise ConfigError(f"{key} must be {allowed}, got {value}")
