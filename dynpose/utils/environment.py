"""The environment that a result depends on: software versions, and the commit of the source."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch

from dynpose.version import __version__


def versions(packages: Iterable[str] = ()) -> dict[str, str | None]:
    """Return the versions of dynpose, Python, PyTorch and ``packages``, None for a package that is not installed."""
    return {
        "dynpose": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: _version(name) for name in packages},
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(folder: Path | None = None) -> dict | None:
    """Return the commit of the code in a folder.

    Args:
        folder: folder of a package; None = dynpose.

    Returns:
        ``commit``, and ``dirty``: whether files differ from it or are untracked. None if git does not track the
        package, even if it is installed within the working tree of another repository.
    """
    folder = folder or Path(__file__).parents[1]
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "."))}


def commit_of(state: dict | None) -> str | None:
    """Write the result of :func:`git_state` in short: the commit, followed by "+" if files differ from it."""
    return state["commit"][:12] + "+" * state["dirty"] if state else None


def _git(folder, *arguments):
    try:
        # without optional locks, a killed run leaves no index.lock in the repository
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
