"""Attributes of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attributes_on_first_use"]


def attributes_on_first_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package (PEP 562).

    Args:
        package (str): its ``__name__``.
        modules (Mapping[str, str]): the package's module that has an attribute, by the attribute's name.

    Returns:
        callable: imports the module, and keeps the attribute in the package. It raises an AttributeError for other
        names.

    Example::

        >>> __getattr__ = attributes_on_first_use(__name__, {"draw_poses": "drawing"})
    """

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{modules[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get_attribute
