"""The named backends of the operators, and the choice between them.

An operator, such as ``kp_net_peaks``, has one implementation per backend. "torch" is the reference in plain PyTorch: it
runs anywhere, implements every operator and defines its result. Further backends implement some or all operators and
are registered by name, inside or outside this package:

    >>> register_backend("mine", {"kp_net_peaks": Implementation(my_peaks)})

A model uses a backend where its config names it. If the named backend lacks an operator, or cannot run it on the given
arguments, "torch" runs instead, with a single warning.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


def _always_available(*arguments):
    return None


@dataclass(frozen=True)
class Implementation:
    """The implementation of one operator by one backend.

    Attributes:
        function: takes the operator's checked arguments by position, without the backend name.
        unavailable_reason: takes the same arguments and returns why ``function`` cannot run on them; None if it can.
        devices: device types for which "auto" chooses it, such as ("cuda",); None for all, () for none, so that it runs
            only if named.
    """

    function: Callable[..., Any]
    unavailable_reason: Callable[..., str | None] = _always_available
    devices: tuple[str, ...] | None = ()


# Operator -> backend -> implementation; "auto" tries them in this order.
_IMPLEMENTATIONS: dict[str, dict[str, Implementation]] = {}


def register_backend(name: str, implementations: Mapping[str, Implementation]) -> None:
    """Add a backend, or add operators to one. "auto" tries it before the backends registered earlier.

    Args:
        name: the name that configs and calls select it by.
        implementations: keyed by operator: "kp_net_heatmaps", "kp_net_peaks", "kp_net_cross_entropy",
            "upsampled_cross_entropy", "expected_distance".

    Raises:
        ValueError: if the name is "auto", the operator is unknown, or the backend already implements it.

    Example::

        >>> register_backend("mine", {"expected_distance": Implementation(my_expected_distance, devices=("cuda",))})
    """
    if name == "auto":
        raise ValueError("name: 'auto' selects a backend and cannot be one")
    for operator in implementations:
        # "torch" is registered first and defines the set of operators
        if name != "torch" and operator not in _IMPLEMENTATIONS:
            raise ValueError(f"implementations: expected operators of {', '.join(_IMPLEMENTATIONS)}, got {operator!r}")
        if name in _IMPLEMENTATIONS.get(operator, {}):
            raise ValueError(f"name: backend {name!r} already implements {operator!r}")
    for operator, implementation in implementations.items():
        _IMPLEMENTATIONS[operator] = {name: implementation, **_IMPLEMENTATIONS.get(operator, {})}


def backend_names() -> tuple[str, ...]:
    """All valid backend names: "auto", then the registered ones in order of preference."""
    names = ["auto"]
    for known in _IMPLEMENTATIONS.values():
        names += [name for name in known if name not in names]
    return tuple(names)


def check_backend(name: str) -> None:
    """Check the name of a backend.

    Raises:
        ValueError: if no backend has that name.
    """
    if name not in backend_names():
        raise ValueError(f"backend: expected one of {', '.join(map(repr, backend_names()))}, got {name!r}")


def select_backend(operator: str, backend: str, device: torch.device, *arguments: Any) -> Callable[..., Any]:
    """Find the function that runs an operator.

    Args:
        operator: name of a registered operator.
        backend: name of a backend, or "auto" for the first one that supports the device and can run.
        device: device of the tensors.
        *arguments: the operator's checked arguments.

    Returns:
        The function, which takes ``arguments``. It is that of "torch" if the named backend lacks the operator or cannot
        run it.

    Raises:
        ValueError: if no backend has that name.
    """
    check_backend(backend)
    known = _IMPLEMENTATIONS[operator]
    if backend != "auto" and backend not in known:
        _warn_of_fallback(operator, backend, "the backend does not implement it")
    for name, implementation in known.items():
        meant = implementation.devices is None or device.type in implementation.devices
        if name != backend and not (backend == "auto" and meant):
            continue
        reason = implementation.unavailable_reason(*arguments)
        if reason is None:
            return implementation.function
        _warn_of_fallback(operator, name, reason)
    return known["torch"].function


def _warn_of_fallback(operator, backend, reason):
    if not torch.compiler.is_compiling():  # a compiled graph cannot warn
        _warn(operator, backend, reason)


@functools.cache
def _warn(operator, backend, reason):
    """Warn once per operator, backend and reason that the requested backend does not run."""
    logging.getLogger(__name__).warning("%s does not run on backend %r: %s", operator, backend, reason)
