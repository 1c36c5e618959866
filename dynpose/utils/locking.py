"""Lock files: who holds one is written in it, and the operating system releases it when that process dies."""

import errno
import logging
import os
import shlex
import socket
import sys
import time
from contextlib import contextmanager, suppress

import portalocker

__all__ = ["LockedError", "locked", "share", "stop_sharing"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_TRIES = 0.2
# What the operating systems answer where another process has the lock
_HELD = (errno.EACCES, errno.EAGAIN)
# Lock files of this process. A child that it forks, such as a data worker, would keep them beyond its end.
_open_files = set()
# Those that it shares with others, by path
_shared = {}


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
        owner (str): that process, as it has described itself in one line.
    """

    def __init__(self, owner):
        super().__init__(owner)
        self.owner = owner


@contextmanager
def locked(path, *, waits=False):
    """Hold a lock file while the block runs.

    The lock is the operating system's (``flock``, through portalocker): it ends with the process, however that ends,
    and a file that a killed process has left locks no one out. After the block the file is removed.

    On a file system without locks, a warning is logged and the block runs all the same.

    Args:
        path (str): of the lock file, in a folder that is there.
        waits (bool): wait until the lock is free, and log for whom; False = raise.

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
            # removed before it is free: whoever has it open sees that it is no longer the file of this name
            with suppress(OSError):  # Windows removes no open file
                if _is_still(path, file):  # somebody may have removed it, and another process made it anew
                    os.remove(path)
            _close(file)


def share(path):
    """Hold a lock file together with other processes until this one ends, to say that it uses something.

    Where that can't be done, in a folder that is read-only or on a file system without locks, nothing happens.

    Args:
        path (str): of the lock file; it stays when the lock ends.
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


def stop_sharing(path):
    """End this process's share of a lock file.

    Args:
        path (str): of the lock file.

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
    has_told = False
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
            if not has_told:
                logger.info("%s: waiting for %s", path, error.owner)
                has_told = True
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except BaseException:
            _close(file)
            raise


def _lock(file, path):
    """Lock an open file; False where the file system has no locks."""
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        if _is_held(error):
            raise LockedError(_read_owner(file)) from None
        logger.warning(
            "%s: the file system has no locks (%s): that no other process uses the folder is not checked", path, error
        )
        return False
    return True


def _is_held(error):
    """Whether another process has the lock; otherwise there are no locks."""
    # before its version 2.8, portalocker has one exception for both
    cause = error.args[0] if error.args else None
    return isinstance(error, portalocker.AlreadyLocked) or getattr(cause, "errno", None) in _HELD


def _is_still(path, file):
    """Whether an open file has not been removed since, and perhaps been replaced."""
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
        # without unlocking, which would count for the parent too
        _open_files.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
