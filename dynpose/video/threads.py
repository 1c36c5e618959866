"""Iterating in a second thread: frames are decoded while the model runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_background", "newest"]

_Item = TypeVar("_Item")
_END = object()
_SECONDS_TO_STOP = 5.0


def in_background(items: Iterable[_Item], ahead: int) -> Generator[_Item, None, None]:
    """Iterate in a thread that is ahead by a bounded number of items.

    Args:
        items (Iterable): read in the thread only.
        ahead (int): number of items that may be held, at least 1.

    Yields:
        the items in their order; an exception is raised in its place. Closing the generator ends the thread, after the
        item that it is at, and closes ``items`` if it is a generator.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="dynpose-ahead")
    try:
        futures = deque(pool.submit(next, iterator, _END) for _ in range(ahead))
        while (item := futures.popleft().result()) is not _END:
            futures.append(pool.submit(next, iterator, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
        _close(iterator)


def newest(items: Iterable[_Item]) -> Generator[_Item, None, None]:
    """Iterate in a thread, and give the newest item each time, so that a slow consumer of a live source keeps up.

    Args:
        items (Iterable): of a live source; read in the thread only.

    Yields:
        items in their order, without those that another one replaced; the last item is always among them. An exception
        is raised after it.
    """
    slot = _Slot()
    iterator = iter(items)
    thread = threading.Thread(target=slot.fill, args=(iterator,), name="dynpose-live", daemon=True)
    thread.start()
    try:
        while (item := slot.take()) is not _END:
            yield item
    finally:
        slot.is_stopped = True
        # a source that hangs must not keep the program from ending
        thread.join(timeout=_SECONDS_TO_STOP)
        if not thread.is_alive():
            _close(iterator)


class _Slot:
    """Holds the newest item."""

    def __init__(self):
        self.is_stopped = False
        self._changed = threading.Condition()
        self._items = deque(maxlen=1)
        self._is_finished = False
        self._failure = None

    def fill(self, iterator):
        failure = None
        try:
            for item in iterator:
                with self._changed:
                    self._items.append(item)
                    self._changed.notify()
                if self.is_stopped:
                    break
        except Exception as error:
            failure = error
        with self._changed:
            self._is_finished, self._failure = True, failure
            self._changed.notify()

    def take(self):
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_finished)
            if self._items:
                return self._items.pop()
        if self._failure is not None:
            raise self._failure
        return _END


def _close(iterator):
    if hasattr(iterator, "close"):
        iterator.close()
