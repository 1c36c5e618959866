"""Importing PyTorch, torchvision and detectron2 in two thirds of the time, for commands that may end after seconds."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["import_quickly"]

_COMPILER = "torch._dynamo"
_USED = f"{_COMPILER}.utils"


def import_quickly(*modules: str) -> None:
    """Import modules that need torchvision, if PyTorch is not imported yet.

    Two things take a third of the time of such an import. torchvision imports PyTorch's compiler for one function that
    it calls when deterministic algorithms are on: here it is imported when that function is called. And Python's
    garbage collector goes through the objects of all modules several times, here never: they live as long as the
    process.

    Args:
        *modules: full names. Nothing is done if PyTorch is imported already: its process has other objects, which may
            be garbage, and perhaps threads that import.
    """
    if "torch" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("torch")
        with _compiler_imported_on_use():
            importlib.import_module("torchvision")
        for module in modules:
            importlib.import_module(module)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _compiler_imported_on_use() -> Iterator[None]:
    """Let ``from torch._dynamo.utils import is_compile_supported`` import nothing."""
    if _COMPILER in sys.modules:
        yield
        return
    substitutes = {name: ModuleType(name) for name in (_COMPILER, _USED)}

    def remove():
        for name, module in substitutes.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    def is_compile_supported(device_type: str) -> bool:
        return importlib.import_module(_USED).is_compile_supported(device_type)

    def find_other(name: str) -> Any:
        if name.startswith("__"):
            # inspect looks for a file
            raise AttributeError(name)
        # another version of torchvision needs more
        remove()
        return getattr(importlib.import_module(_USED), name)

    substitutes[_USED].is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    substitutes[_USED].__getattr__ = find_other  # type: ignore[method-assign]
    sys.modules.update(substitutes)
    try:
        yield
    finally:
        remove()
