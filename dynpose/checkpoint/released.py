"""The authors' released checkpoints: recognised by their keys, renamed to dynpose's."""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor

from dynpose.methods import ReleasedFormat, registered_methods

__all__ = [
    "ReleasedFormat",
    "ShapeComparison",
    "compare_shapes",
    "convert_released",
    "detect_released",
    "released_formats",
]


class ShapeComparison(NamedTuple):
    """The result of :func:`compare_shapes`.

    Attributes:
        missing (list[str]): parameters of the model that the weights lack.
        unused (list[str]): parameters of the weights that the model lacks.
        misfits (list[str]): parameters of another shape, with both shapes.
    """

    missing: list[str]
    unused: list[str]
    misfits: list[str]


def released_formats() -> list[ReleasedFormat]:
    """Return the formats of all registered methods: a list of ReleasedFormat."""
    return [released for method in registered_methods() for released in method.released_formats]


def detect_released(state_dict: Mapping[str, Tensor]) -> ReleasedFormat | None:
    """Recognise a released checkpoint.

    Args:
        state_dict (dict[str, Tensor]): its parameters.

    Returns:
        ReleasedFormat | None: None for anything else, such as a dynpose checkpoint or a backbone's weights.
    """
    for released in released_formats():
        if all(any(key.endswith(ending) for key in state_dict) for ending in released.signature):
            return released
    return None


def convert_released(state_dict: Mapping[str, Tensor], released: ReleasedFormat) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the parameters of a released checkpoint to dynpose's.

    Args:
        state_dict (dict[str, Tensor]): its parameters.
        released (ReleasedFormat): from :func:`detect_released`.

    Returns:
        tuple[dict[str, Tensor], list[str]]: the renamed parameters, and the keys that have no name in dynpose.
    """
    converted, unknown = {}, []
    for key, value in state_dict.items():
        key = key.removeprefix("module.")
        if any(re.fullmatch(pattern, key) for pattern in released.unused):
            continue
        for pattern, replacement in released.renames:
            new_key, hits = re.subn(f"^(?:{pattern})$", replacement, key)
            if hits:
                converted[new_key] = value.flatten(1) if new_key in released.linear and value.dim() > 2 else value
                break
        else:
            unknown.append(key)
    return converted, unknown


def compare_shapes(
    converted: Mapping[str, Tensor], state: Mapping[str, Tensor], varying: Collection[str] = ()
) -> ShapeComparison:
    """Compare renamed weights with a model.

    Args:
        converted (dict[str, Tensor]): from :func:`convert_released`.
        state (dict[str, Tensor]): state dict of the model; its counters of steps are not expected in the weights.
        varying (Collection[str]): parameters that are not compared.

    Returns:
        ShapeComparison
    """
    expected = {key: tuple(value.shape) for key, value in state.items() if "num_batches_tracked" not in key}
    return ShapeComparison(
        missing=sorted(expected.keys() - converted.keys() - set(varying)),
        unused=[key for key in converted if key not in state and key not in varying],
        misfits=[
            f"{key} {tuple(converted[key].shape)} instead of {shape}"
            for key, shape in expected.items()
            if key in converted and key not in varying and tuple(converted[key].shape) != shape
        ],
    )
