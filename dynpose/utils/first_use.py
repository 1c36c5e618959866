"""Imports that wait: attributes of a package for their first use, and actions for another package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["after_import", "attributes_on_first_use"]


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


def after_import(module: str, action: Callable[[], object]) -> None:
    """Do something as soon as a module is imported; at once if it is already.

    Args:
        module (str): its full name.
        action (callable): called once. It may import modules that are themselves waiting for ``module``, so it must not
            need their contents.
    """
    if sys.modules.get(module) is not None:
        action()
    else:
        sys.meta_path.insert(0, _ImportWatcher(module, action))


class _ImportWatcher:
    """Finds nothing itself; calls a function after the import of a module that the other finders find."""

    def __init__(self, module: str, action: Callable[[], object]):
        self._module = module
        self._action = action

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _WatchedLoader(spec.loader, self._imported)  # type: ignore[assignment]
        return spec

    def _imported(self):
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._action()


class _WatchedLoader:
    """A loader that calls a function after its module is executed; in all else, the loader of the module."""

    def __init__(self, loader: Any, imported: Callable[[], None]):
        self._loader = loader
        self._imported = imported

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # what the module and pkgutil see is the loader that Python would have set
        module.__spec__.loader = module.__loader__ = self._loader  # type: ignore[union-attr]
        self._loader.exec_module(module)
        self._imported()
