"""Checks of the arguments of components, which work without a config; those of config keys are in dynpose.config."""

from collections.abc import Collection


def check_one_of(name: str, value: str | int, choices: Collection[str | int]) -> None:
    """Check that an argument is one of the allowed values.

    Args:
        name (str): name of the argument.
        value: value of the argument.
        choices (Sequence): the allowed values.

    Raises:
        ValueError: the value is not allowed.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
