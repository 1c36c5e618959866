"""Finding config files: by path, or by name among the configs that come with dynpose."""

import difflib
import os
from pathlib import Path

from .errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """Return the folder of the configs that come with dynpose.

    An installed package holds a copy of them; in a checkout they are ``configs/`` beside the package.

    Returns:
        Path
    """
    installed = _PACKAGE / "model_zoo" / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> list[str]:
    """List the configs that come with dynpose.

    Returns:
        list[str]: sorted names, such as "FCPose/R_50_3x.yaml", and "FCPose/R_50_3x.py" for a lazy config.
    """
    folder = config_folder()
    files = (path for pattern in ("*.yaml", "*.py") for path in folder.rglob(pattern))
    return sorted(path.relative_to(folder).as_posix() for path in files)


def find_config_file(path_or_name: str | os.PathLike[str]) -> str:
    """Find a config file.

    Args:
        path_or_name (str | PathLike): the path of a file, or the name of a config that comes with dynpose. A file at
            that path takes precedence.

    Returns:
        str: the path of the file.

    Raises:
        ConfigError: the argument is neither; the message lists similar names.

    Example::

        >>> find_config_file("FCPose/R_50_3x.yaml")
        '.../configs/FCPose/R_50_3x.yaml'
    """
    given = os.fspath(path_or_name)
    if os.path.isfile(given):
        return given
    named = find_named_config(given)
    if named is None:
        where = f"those that come with dynpose are in {config_folder()}"
        raise ConfigError(f"{given}: no such config file or name; {suggest_names(given) or where}")
    return named


def find_named_config(name: str) -> str | None:
    """Find a config that comes with dynpose.

    Args:
        name (str): see :func:`config_names`.

    Returns:
        str | None: the path of the file; None = no config has that name.
    """
    return str(config_folder() / name) if Path(name).as_posix() in config_names() else None


def suggest_names(name: str) -> str:
    """Suggest configs for a name that no config has.

    Args:
        name (str)

    Returns:
        str: a clause for an error message, "" if no name is similar.
    """
    close = difflib.get_close_matches(Path(name).as_posix(), config_names(), n=3)
    return f"did you mean {' or '.join(close)}?" if close else ""
