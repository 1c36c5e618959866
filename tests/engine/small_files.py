"""A disk that gets full, without one: the system refuses to write more than so many bytes to a file."""

import resource
from contextlib import contextmanager


@contextmanager
def small_files(size):
    """Let files have no more than ``size`` bytes."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
