"""The interface of a case, which defines what is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import torch

Inputs = TypeVar("Inputs", bound=Iterable[torch.Tensor | None])


class Case(Protocol[Inputs]):
    """Inputs, and the compared alternatives by name. A case can be pickled.

    If the results of the alternatives must be the same, a case also has the name of its ``reference`` and
    ``check(expected, actual, inputs, tolerance)``, which raises :class:`~.agreement.Disagreement`.
    """

    def make_inputs(self, device: torch.device, seed: int) -> Inputs:
        """Make the inputs of one call: tensors on the device, and None in place of those that a case does not need."""

    def run(self, name: str, inputs: Inputs) -> Any:
        """Run one alternative once, and return its result."""
