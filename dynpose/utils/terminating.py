"""Ending on SIGTERM by an exception, so that the blocks that are entered clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["sigterm_raises"]


@contextmanager
def sigterm_raises(error: type[BaseException]) -> Iterator[None]:
    """Raise an exception on SIGTERM within the block.

    Nothing changes outside the main thread, in which alone Python handles signals.

    Args:
        error (type[BaseException]): raised without arguments.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_):
        raise error

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        # None: it was not installed from Python
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
