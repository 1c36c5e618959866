"""A cache of results about files, kept between runs so that a second start need not read the files again.

An entry is one file, ``<folder>/<kind>-<sha256 of the key>.npz``. The cache is optional: if the folder can't be written
or an entry is missing, corrupt or of another key, the work is repeated.
"""

import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

__all__ = ["cache_folder", "load_arrays", "store_arrays"]

logger = logging.getLogger(__name__)

_MAX_BYTES = 2 * 10**9
# Only files with such names are removed: the folder may hold other files of the user
_ENTRY = re.compile(r"[a-z0-9_]+-[0-9a-f]{64}\.npz")
_UNFINISHED = re.compile(rf"{_ENTRY.pattern}\..*\.tmp")
_UNFINISHED_SECONDS = 3600


def cache_folder() -> str | None:
    """The folder of the cache.

    Returns:
        str | None: the environment variable DYNPOSE_CACHE; if it is not set, ``dynpose`` in XDG_CACHE_HOME or in
        ``~/.cache``. None if DYNPOSE_CACHE is empty, which disables the cache, and for a user without a home. The
        folder need not exist.
    """
    folder = os.environ.get("DYNPOSE_CACHE")
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME", "")
        # by the XDG specification, relative paths are ignored
        folder = os.path.join(home if os.path.isabs(home) else os.path.join("~", ".cache"), "dynpose")
    folder = os.path.expanduser(folder)
    # containers may run under user ids without a home
    return None if not folder or folder.startswith("~") else folder


def load_arrays(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """Read the arrays of :func:`store_arrays`.

    Args:
        kind (str): type of entry: lower-case letters, digits and underscores.
        key (str): everything that the arrays depend on, of any length. Values that change while the key stays the same,
            such as a file's size and time, belong in the arrays and are compared by the caller.

    Returns:
        dict[str, ndarray] | None: None if there is no valid entry for this kind and key.
    """
    path = _path(kind, key)
    if path is None or not os.path.isfile(path):  # opening a pipe may block forever
        return None
    try:
        with np.load(path, allow_pickle=False) as entry:
            if entry["key"].tobytes() != _encode(key):
                raise ValueError("it has another key")
            arrays = {name[1:]: entry[name] for name in entry.files if name != "key"}
    except Exception as error:  # zip, NumPy and the operating system raise any exception on a corrupt file
        logger.info("Ignoring the cache entry %s: %s: %s", path, type(error).__name__, error)
        return None
    # the least recently used entries are removed first
    with suppress(OSError):
        os.utime(path)
    return arrays


def store_arrays(kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> bool:
    """Store arrays for a later run, replacing those of the same kind and key.

    Entries are written atomically; if several processes store the same entry, the last one wins. If the entries exceed
    2 GB in total, the least recently used ones are removed.

    Args:
        kind (str), key (str): see :func:`load_arrays`.
        arrays (dict[str, ndarray]): of numbers, booleans or strings.

    Returns:
        bool: whether the arrays are stored. A full disk or a folder that can't be written is logged, not an error.

    Raises:
        TypeError: an array holds Python objects.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"{kind}: {name!r} holds Python objects, which can't be cached")
    path = _path(kind, key)
    if path is None or sum(array.nbytes for array in arrays.values()) > _MAX_BYTES:
        return False
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _write(path, key, arrays)
        _remove_oldest(os.path.dirname(path))
    except OSError as error:
        logger.info("Can't cache %s in %s: %s", kind, path, error)
        return False
    return True


def _path(kind, key):
    if not re.fullmatch(r"[a-z0-9_]+", kind):
        raise ValueError(f"kind is {kind!r}; give it lower-case letters, digits and underscores only")
    folder = cache_folder()
    return folder and os.path.join(folder, f"{kind}-{hashlib.sha256(_encode(key)).hexdigest()}.npz")


def _encode(key):
    return key.encode("utf-8", "surrogatepass")  # file names may hold lone surrogates


def _write(path, key, arrays):
    # A unique name for every writer, unlike atomic_open, and no fsync: an incomplete entry fails its checksum
    descriptor, temporary = tempfile.mkstemp(".tmp", f"{os.path.basename(path)}.", os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            # the underscore prevents a clash of array names with "key" and with the arguments of savez
            np.savez(
                file, key=np.frombuffer(_encode(key), np.uint8), **{f"_{name}": array for name, array in arrays.items()}
            )
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.remove(temporary)
        raise


def _remove_oldest(folder):
    """Remove least recently used entries beyond the size limit, and unfinished files of killed processes."""
    entries, now = [], time.time()
    with os.scandir(folder) as files:
        for file in files:
            with suppress(OSError):  # another process may have removed it
                if _ENTRY.fullmatch(file.name):
                    entries.append((file.stat().st_mtime, file.stat().st_size, file.path))
                elif _UNFINISHED.fullmatch(file.name) and now - file.stat().st_mtime > _UNFINISHED_SECONDS:
                    os.remove(file.path)
    total = 0
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > _MAX_BYTES:
            with suppress(OSError):
                os.remove(path)
