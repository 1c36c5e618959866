"""The named backends of the operators, and which of them runs.

An operator, such as ``kp_net_peaks``, has one implementation per backend. "torch" is plain PyTorch: it runs anywhere,
implements every operator and defines what it means. Further backends implement some operators or all of them, and are
registered by name, from inside this package or from outside:

    >>> register_backend("mine", {"kp_net_peaks": Implementation(my_peaks)})

A model then uses it wherever its config names it. Where a named backend lacks an operator, or cannot run one on the
arguments at hand, "torch" runs instead, and a warning says so once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


def _always_available(*arguments):
    return None


@dataclass(frozen=True)
class Implementation:
    """How one backend runs one operator.

    Attributes:
        function: takes the operator's arguments by position, checked and without the name of the backend.
        unavailable_reason: takes the same arguments and returns why ``function`` cannot run on them, None where it can.
        devices: types of the devices on which "auto" chooses it, such as ("cuda",); None for all, () for none, so that
            it only runs where it is named.
    """

    function: Callable
    unavailable_reason: Callable[..., str | None] = _always_available
    devices: tuple[str, ...] | None = ()


# Operator -> backend -> implementation; "auto" prefers the first.
_IMPLEMENTATIONS: dict[str, dict[str, Implementation]] = {}


def register_backend(name: str, implementations: Mapping[str, Implementation]) -> None:
    """Add a backend, or further operators to one. For "auto", it comes before those that are already registered.

    Args:
        name: by which configs and calls select it.
        implementations: by operator: "kp_net_heatmaps", "kp_net_peaks", "kp_net_cross_entropy",
            "upsampled_cross_entropy", "expected_distance".

    Raises:
        ValueError: if the name is "auto", if there is no such operator, or if the backend already implements it.

    Example::

        >>> register_backend("mine", {"expected_distance": Implementation(my_expected_distance, devices=("cuda",))})
    """
    if name == "auto":
        raise ValueError("name: 'auto' selects a backend and cannot be one")
    for operator in implementations:
        # "torch" comes first and defines which operators there are
        if name != "torch" and operator not in _IMPLEMENTATIONS:
            raise ValueError(f"implementations: expected operators of {', '.join(_IMPLEMENTATIONS)}, got {operator!r}")
        if name in _IMPLEMENTATIONS.get(operator, {}):
            raise ValueError(f"name: backend {name!r} already implements {operator!r}")
    for operator, implementation in implementations.items():
        _IMPLEMENTATIONS[operator] = {name: implementation, **_IMPLEMENTATIONS.get(operator, {})}


def backend_names() -> tuple[str, ...]:
    """Every name that selects a backend: "auto", then the registered ones, the preferred first."""
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


def select_backend(operator: str, backend: str, device: torch.device, *arguments) -> Callable:
    """Find the function that runs an operator.

    Args:
        operator: a registered one.
        backend: name of a backend, or "auto" for the first that is meant for the device and can run.
        device: of the tensors.
        *arguments: of the operator, checked.

    Returns:
        The function; it takes ``arguments``. "torch" provides it where the named backend lacks the operator or cannot
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
    if not torch.compiler.is_compiling():  # a graph that is being compiled has no place for it
        _warn(operator, backend, reason)


@functools.cache
def _warn(operator, backend, reason):
    """Say once for each operator, backend and reason that the wanted backend does not run."""
    logging.getLogger(__name__).warning("%s runs without its backend %r: %s", operator, backend, reason)
