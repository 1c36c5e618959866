"""Lock files: a file names its owner, and the operating system releases the lock when that process dies."""

import errno
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import portalocker

__all__ = ["LockedError", "locked", "share", "stop_sharing"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_TRIES = 0.2
# Error codes of the operating systems if another process has the lock
_HELD = (errno.EACCES, errno.EAGAIN)
# Lock files of this process. A forked child, such as a data worker, would hold them after this process ends.
_open_files: set[IO[str]] = set()
# Lock files shared with other processes, by path
_shared: dict[str, IO[str]] = {}


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
        owner (str): one-line description of that process, read from the lock file.
    """

    def __init__(self, owner: str):
        super().__init__(owner)
        self.owner = owner


@contextmanager
def locked(path: str, *, waits: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs.

    The lock is the operating system's (``flock``, through portalocker): it ends with the process, however that ends,
    and the file of a killed process blocks no other. After the block the file is removed.

    On a file system without locks, a warning is logged and the block runs without a lock.

    Args:
        path (str): path of the lock file, in an existing folder.
        waits (bool): wait until the lock is free, and log its owner; False = raise.

    Raises:
        LockedError: another process, or another block of this one, holds the lock.
        OSError: the file can't be written.

    Example::

        >>> with locked("output/run.lock"):
        ...     train()
    """
    file = _take(path, waits)
    try:
        yield
    finally:
        if file in _open_files:  # not in a forked child
            # removed before it is unlocked: processes that have it open detect that the name no longer refers to it
            with suppress(OSError):  # Windows can't remove an open file
                if _is_still(path, file):  # it may have been removed, and recreated by another process
                    os.remove(path)
            _close(file)


def share(path: str) -> None:
    """Hold a shared lock until this process ends, to mark a resource as in use.

    Does nothing in a read-only folder or on a file system without locks.

    Args:
        path (str): path of the lock file; the file remains when the lock ends.
    """
    if path in _shared:
        return
    with suppress(OSError, portalocker.LockException):
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  open until the process ends
        _open_files.add(file)
        try:
            portalocker.lock(file, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING)
        except BaseException:
            _close(file)
            raise
        _shared[path] = file


def stop_sharing(path: str) -> bool:
    """Release this process's shared lock.

    Args:
        path (str): path of the lock file.

    Returns:
        bool: whether other processes :func:`share` it.
    """
    if path in _shared:
        _close(_shared.pop(path))
    try:
        with open(path, "a+", encoding="utf-8") as file:
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        return _is_held(error)
    except OSError:
        return False
    return False


def _take(path, waits):
    has_logged = False
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  open as long as it is locked
        _open_files.add(file)
        try:
            if not _lock(file, path):
                return file
            if _is_still(path, file):
                _describe_owner(file)
                return file
            _close(file)
        except LockedError as error:
            _close(file)
            if not waits:
                raise
            if not has_logged:
                logger.info("%s: waiting for %s", path, error.owner)
                has_logged = True
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except BaseException:
            _close(file)
            raise


def _lock(file, path):
    """Lock an open file; return False if the file system has no locks."""
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        if _is_held(error):
            raise LockedError(_read_owner(file)) from None
        logger.warning(
            "%s: the file system has no locks (%s): other processes may use the folder unnoticed", path, error
        )
        return False
    return True


def _is_held(error):
    """Whether another process has the lock; otherwise the file system has no locks."""
    # portalocker before version 2.8 has one exception for both cases
    cause = error.args[0] if error.args else None
    return isinstance(error, portalocker.AlreadyLocked) or getattr(cause, "errno", None) in _HELD


def _is_still(path, file):
    """Whether the path still refers to an open file, which has been neither removed nor replaced."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _describe_owner(file):
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    # a command line may hold any bytes
    command = shlex.join(sys.argv).encode("utf-8", "backslashreplace").decode()
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}, started {started}: {' '.join(command.split())}\n")
    file.flush()


def _read_owner(file):
    try:
        file.seek(0)
        return file.readline().strip() or "another process"
    except (OSError, ValueError):  # Windows does not allow reading it
        return "another process"


def _close(file):
    _open_files.discard(file)
    file.close()


def _close_in_child():
    _shared.clear()
    while _open_files:
        # without unlocking, which would release the parent's lock too
        _open_files.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
