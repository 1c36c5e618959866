"""Checks of config values: a wrong one is found when a model is built, and not by what it does to a training.

Each takes a config and the full names of keys, and raises a :class:`ConfigError` that names the key, its value and what
is allowed. Where a value is a list, each of its numbers is checked. Components check their own arguments instead, under
their own names, and raise ValueError; :func:`blame` says which key such an argument comes from.
"""

import contextlib
import math
import numbers

from detectron2.layers import get_norm

from .errors import ConfigError


@contextlib.contextmanager
def blame(*keys):
    """Turn a ValueError into a ConfigError that names the keys from which the faulty arguments come.

    For faults that depend on more than the config, such as the shapes of a backbone or the keypoints of a schema, and
    that the component finds by itself.

    Args:
        *keys (str): full names.

    Raises:
        ConfigError: the keys, then the message of the ValueError. Any ConfigError passes as it is.

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


def check_at_most_1(cfg, *keys):
    """Scores of at most 1; a negative one is below all scores."""
    _check_numbers(cfg, keys, lambda value: value <= 1, "at most 1")


def check_focal_alpha(cfg, *keys):
    """Alphas of fvcore's focal loss: from 0 to 1, or -1 for none."""
    _check_numbers(cfg, keys, lambda value: 0 <= value <= 1 or value == -1, "from 0 to 1, or -1 for none")


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


def check_length(cfg, key, length):
    """A list of so many values."""
    values = read_key(cfg, key)
    if len(values) != length:
        raise ConfigError(f"{key} must have {length} values, got {list(values)}")


def check_choice(cfg, key, choices):
    """One of some values."""
    value = read_key(cfg, key)
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_choices(cfg, key, choices):
    """A list of one or more of some values."""
    values = read_key(cfg, key)
    if not values or any(value not in choices for value in values):
        raise ConfigError(f"{key} must name one or more of {', '.join(map(repr, choices))}, got {list(values)}")


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
            if not isinstance(number, numbers.Real) or not math.isfinite(number) or not is_allowed(number):
                raise ConfigError(f"{key} must be {allowed}, got {value!r}")
