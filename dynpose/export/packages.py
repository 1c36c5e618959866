"""The optional packages of an export."""

import importlib
from types import ModuleType

from dynpose.config import ConfigError

__all__ = ["require"]


def require(name: str, purpose: str, extra: str = "export") -> ModuleType:
    """Import a package of an extra.

    Args:
        name: of the module.
        purpose: what needs it, for the message.
        extra: of dynpose, which installs it.

    Returns:
        The module.

    Raises:
        ConfigError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(
            f"{purpose} needs the package {package}, which can't be imported ({error}): pip install 'dynpose[{extra}]'"
        ) from error
