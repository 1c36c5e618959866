"""Helpers for detectron2's LazyConfig: values derived from others, and components without omegaconf containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def get_attribute(of: Any, name: str) -> Any:
    """Read an attribute of an object when a config is instantiated.

    Values of a lazy config that follow from another part of it, such as K from the keypoint schema, are thus written
    only once.

    Args:
        of (object): in a config, an interpolation of the instantiated part.
        name (str): name of its attribute.

    Returns:
        object: the value.

    Example::

        >>> model.head.num_keypoints = LazyCall(get_attribute)(of="${...schema}", name="num_keypoints")
    """
    return getattr(of, name)


def set_plain(instance: DataclassInstance, *names: str) -> None:
    """Convert sequences to tuples and mappings to dicts, in place, in a dataclass that may be frozen.

    detectron2's ``instantiate`` passes lists and dicts of a config as omegaconf containers, which are slow to read and
    convert dataclasses that are put into them.

    Args:
        instance (object): a dataclass instance, such as ``self`` in ``__post_init__``.
        *names (str): the attributes to convert.
    """
    for name in names:
        value = getattr(instance, name)
        object.__setattr__(instance, name, dict(value) if isinstance(value, Mapping) else tuple(value))
