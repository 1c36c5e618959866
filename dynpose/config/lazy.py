"""What detectron2's LazyConfig needs: values that depend on other values, and components without omegaconf in them."""

from collections.abc import Mapping


def get_attribute(of, name):
    """Read an attribute of an object when a config is instantiated.

    A number of a lazy config that follows from another part of it, such as K from the keypoint schema, is written down
    once.

    Args:
        of (object): in a config, an interpolation of the part that is instantiated.
        name (str): of its attribute.

    Returns:
        object: the value.

    Example::

        >>> model.head.num_keypoints = LazyCall(get_attribute)(of="${...schema}", name="num_keypoints")
    """
    return getattr(of, name)


def set_plain(instance, *names):
    """Turn sequences into tuples and mappings into dicts, in place, for a dataclass that may be frozen.

    detectron2's ``instantiate`` passes lists and dicts of a config as omegaconf's containers, which are slow to read
    and convert dataclasses that are put into them.

    Args:
        instance (object): a dataclass instance, such as ``self`` in ``__post_init__``.
        *names (str): its attributes.
    """
    for name in names:
        value = getattr(instance, name)
        object.__setattr__(instance, name, dict(value) if isinstance(value, Mapping) else tuple(value))
