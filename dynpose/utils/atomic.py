"""Atomic writing: a file is complete or does not exist, even if a process or a machine dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager

__all__ = ["AtomicPathManager", "atomic_open"]


@contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that gets its name, replacing an earlier file of that name, when the block succeeds.

    Until then it is called ``<path>.tmp``; an exception in the block deletes it. The content is synced to disk before
    the file is renamed.

    Args:
        path (str | PathLike): on a local or network file system.
        mode (str): "w" or "wb".

    Example::

        >>> with atomic_open("last_checkpoint") as f:
        ...     f.write("model_0004999.pth")
    """
    temporary = f"{os.fspath(path)}.tmp"
    try:
        with open(temporary, mode) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise
    _sync_folder(os.path.dirname(os.path.abspath(path)))


class AtomicPathManager:
    """A detectron2 PathManager that writes local files by :func:`atomic_open`, and all others unchanged.

    Args:
        path_manager (PathManager): handles all other calls.
    """

    def __init__(self, path_manager: PathManager):
        self._path_manager = path_manager

    def __getattr__(self, name):
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> AbstractContextManager[IO[Any]]:
        """Open a file, as PathManager does."""
        if "w" in mode and "://" not in path:
            return atomic_open(path, mode)
        return self._path_manager.open(path, mode, **kwargs)


def _sync_folder(folder):
    # not supported by some network file systems, nor by Windows
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
