"""Checks of the arguments of components, which work without a config; those of config keys are in dynpose.config."""


def check_one_of(name, value, choices):
    """Check an argument that must be one of some values.

    Args:
        name (str): of the argument.
        value: of the argument.
        choices (Sequence): the values.

    Raises:
        ValueError: it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
