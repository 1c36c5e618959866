"""What dynpose has worked out about files, remembered between runs so that a second start need not read them again.

An entry is one file, ``<folder>/<kind>-<sha256 of the key>.npz``. Nothing depends on it: a folder that can't be written
and an entry that is missing, damaged or of another key only mean that the work is done again.
"""

import hashlib
import logging
import os
import re
import tempfile
import time
from contextlib import suppress

import numpy as np

__all__ = ["cache_folder", "load_arrays", "store_arrays"]

logger = logging.getLogger(__name__)

_MAX_BYTES = 2 * 10**9
# Only files of this name are ever removed: the folder may hold a user's own
_ENTRY = re.compile(r"[a-z0-9_]+-[0-9a-f]{64}\.npz")
_UNFINISHED = re.compile(rf"{_ENTRY.pattern}\..*\.tmp")
_UNFINISHED_SECONDS = 3600


def cache_folder():
    """Where dynpose remembers what it has read.

    Returns:
        str | None: the environment variable DYNPOSE_CACHE; where it is not set, ``dynpose`` in XDG_CACHE_HOME or in
        ``~/.cache``. None where DYNPOSE_CACHE is empty, which turns remembering off, and for a user without a home. The
        folder need not exist.
    """
    folder = os.environ.get("DYNPOSE_CACHE")
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME", "")
        # the XDG specification has relative paths ignored
        folder = os.path.join(home if os.path.isabs(home) else os.path.join("~", ".cache"), "dynpose")
    folder = os.path.expanduser(folder)
    # containers run under user ids that no home belongs to
    return None if not folder or folder.startswith("~") else folder


def load_arrays(kind, key):
    """Read what :func:`store_arrays` remembered.

    Args:
        kind (str): what is remembered: lower-case letters, digits and underscores.
        key (str): everything that the arrays depend on, of any length. What changes without the key changing, such as a
            file's size and time, belongs into the arrays and is compared by the caller.

    Returns:
        dict[str, ndarray] | None: None if nothing usable is remembered for this kind and key.
    """
    path = _path(kind, key)
    if path is None or not os.path.isfile(path):  # to open a pipe may take forever
        return None
    try:
        with np.load(path, allow_pickle=False) as entry:
            if entry["key"].tobytes() != _encode(key):
                raise ValueError("it has another key")
            arrays = {name[1:]: entry[name] for name in entry.files if name != "key"}
    except Exception as error:  # zip, NumPy and the operating system raise whatever they like on a damaged file
        logger.info("Passing over the cache's %s: %s: %s", path, type(error).__name__, error)
        return None
    # the least recently used entries go first
    with suppress(OSError):
        os.utime(path)
    return arrays


def store_arrays(kind, key, arrays):
    """Remember arrays for a later run, in place of those of the same kind and key.

    An entry appears as a whole or not at all; of several processes that store the same one the last wins. When all
    entries take more than 2 GB, those not used for longest are removed.

    Args:
        kind (str), key (str): see :func:`load_arrays`.
        arrays (dict[str, ndarray]): of numbers, booleans or strings.

    Returns:
        bool: whether they are remembered now. A full disk or a folder that can't be written is logged, no error.

    Raises:
        TypeError: an array holds Python objects.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"{kind}: {name!r} holds Python objects, which the cache does not keep")
    path = _path(kind, key)
    if path is None or sum(array.nbytes for array in arrays.values()) > _MAX_BYTES:
        return False
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _write(path, key, arrays)
        _remove_oldest(os.path.dirname(path))
    except OSError as error:
        logger.info("Can't remember %s in %s: %s", kind, path, error)
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
    # A name of its own for every writer, unlike atomic_open's, and no fsync: a torn entry fails its checksum
    descriptor, temporary = tempfile.mkstemp(".tmp", f"{os.path.basename(path)}.", os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            # the underscore keeps any name of an array apart from "key" and from savez's own arguments
            np.savez(
                file, key=np.frombuffer(_encode(key), np.uint8), **{f"_{name}": array for name, array in arrays.items()}
            )
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.remove(temporary)
        raise


def _remove_oldest(folder):
    """Remove the entries not used for longest until the others are small enough, and what killed processes left."""
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
