"""Writing checkpoint files: as a whole or not at all, with an error that says what the disk lacks."""

import errno
import os
import shutil
from contextlib import contextmanager

import torch

from dynpose.utils.atomic import atomic_open

from .errors import CheckpointError

__all__ = ["explain_write_errors", "write_checkpoint"]

# What systems answer where a disk, a quota or a limit of files is used up
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch.save adds to the bytes of the tensors is small beside them
_OVERHEAD = 64 * 1024


def write_checkpoint(path, content, opener=atomic_open):
    """Write what ``torch.save`` takes to a file.

    Args:
        path (str): the file; until it is complete, one of that name stays as it is.
        content (dict): tensors in dicts, lists and tuples.
        opener (Callable): opens a path in a mode; of a path manager, for other file systems than the local one.

    Raises:
        CheckpointError: the file can't be written. Nothing of it is left.
    """
    with explain_write_errors(path, content), opener(path, "wb") as f:
        torch.save(content, f)


@contextmanager
def explain_write_errors(path, content=None):
    """Turn what a failed write raises into a CheckpointError that says how many bytes are needed and free.

    Args:
        path (str): the file that is written in the block.
        content (Any): what is written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save makes a RuntimeError about its own position of what the disk said
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        room, remedy = "", "make the folder writable and remove what is in the file's place"
        if isinstance(error, RuntimeError) or error.errno in _NO_ROOM:
            needed, free = _count_bytes(content) + _OVERHEAD, _free_bytes(path)
            room = f": it takes {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free on its disk" if free else ""
            remedy = "make room"
        raise CheckpointError(
            f"{path}: can't be written ({reason}){room}. An earlier file of that name is unchanged; {remedy}, and do "
            "again what was to write it (a training: with --resume)"
        ) from error


def _count_bytes(content):
    """The bytes of all tensors, each storage once, as ``torch.save`` writes them."""
    return sum({storage.data_ptr(): storage.nbytes() for storage in _storages(content)}.values())


def _storages(value):
    if isinstance(value, torch.Tensor):
        yield value.untyped_storage()
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _storages(item)


def _free_bytes(path):
    try:
        return shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    except OSError:
        return None
