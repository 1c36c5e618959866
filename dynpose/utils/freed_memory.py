"""Keeping freed memory for later allocations, instead of returning it to the operating system."""

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# of glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
# the largest value that mallopt takes, an int
_NO_LIMIT = 2**31 - 1
_USER_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Make this process keep the memory of freed tensors (up to 2 GiB) for the next ones.

    By default glibc returns the memory of large tensors to the operating system as soon as they are freed, and every
    layer of a network on a CPU then waits for cleared pages again. docs/benchmarks.md states what this saves. The
    memory that a process holds between its steps grows to about the peak of a step.

    Returns:
        bool: False, and nothing is changed, with another C library, or if the user has set glibc's limits
        (``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``).
    """
    if sys.platform != "linux" or any(name in os.environ for name in _USER_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Earlier versions of glibc refuse thresholds above 32 MiB; without separate mappings there is none.
    is_set = mallopt(_M_MMAP_THRESHOLD, _NO_LIMIT) == 1 or mallopt(_M_MMAP_MAX, 0) == 1
    return is_set and mallopt(_M_TRIM_THRESHOLD, _NO_LIMIT) == 1
