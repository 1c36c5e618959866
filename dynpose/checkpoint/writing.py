"""Writing checkpoint files atomically, with an error that states the missing disk space."""

import errno
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any

import torch

from dynpose.utils.atomic import atomic_open

from .errors import CheckpointError

__all__ = ["explain_write_errors", "write_checkpoint"]

# Error codes for an exhausted disk, quota or file size limit
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Allowance for the bytes that torch.save adds to those of the tensors, which is small in comparison
_OVERHEAD = 64 * 1024


def write_checkpoint(
    path: str, content: dict[str, Any], opener: Callable[[str, str], AbstractContextManager[IO[Any]]] = atomic_open
) -> None:
    """Write content to a file with ``torch.save``.

    Tensors in the channels-last layout are written in the default one, so that a file does not depend on the layout in
    which a model was trained.

    Args:
        path (str): the file; an existing file is replaced only when the new one is complete.
        content (dict): tensors in dicts, lists and tuples.
        opener (Callable): opens a path in a mode; that of a path manager, for file systems other than the local one.

    Raises:
        CheckpointError: the file can't be written. No partial file is left.
    """
    with explain_write_errors(path, content), opener(path, "wb") as f:
        torch.save(_in_default_layout(content), f)


@contextmanager
def explain_write_errors(path: str, content: Any = None) -> Iterator[None]:
    """Turn the error of a failed write into a CheckpointError that states the needed and the free bytes.

    Args:
        path (str): the file that is written in the block.
        content (Any): the content to write.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save replaces the disk's error by a RuntimeError about its write position
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        room, remedy = "", "make the folder writable and remove any folder of that name"
        if isinstance(error, RuntimeError) or error.errno in _NO_ROOM:
            needed, free = _count_bytes(content) + _OVERHEAD, _free_bytes(path)
            room = f": it needs {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free on its disk" if free else ""
            remedy = "free disk space"
        raise CheckpointError(
            f"{path}: can't be written ({reason}){room}. An earlier file of that name is unchanged; {remedy}, and run "
            "the command again (training: with --resume)"
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


def _in_default_layout(content):
    if isinstance(content, torch.Tensor):
        is_channels_last = content.dim() == 4 and content.is_contiguous(memory_format=torch.channels_last)
        return content.contiguous() if is_channels_last else content
    if type(content) in (dict, OrderedDict):
        return type(content)((key, _in_default_layout(value)) for key, value in content.items())
    if type(content) in (list, tuple):
        return type(content)(map(_in_default_layout, content))
    return content
