"""Applying a function in a second thread, ahead of the caller: images are decoded while the model runs."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["map_ahead"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_SECONDS_TO_STOP = 5.0


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Generator[tuple[_Item, Future[_Result]], None, None]:
    """Apply a function to items in a thread, which is ahead of the caller by a bounded number of items.

    Args:
        function: called in the thread, for one item after another.
        items (Iterable): read in the caller's thread.
        ahead (int): number of items that may be held, at least 1.

    Yields:
        tuple: an item and the future of its result, in the order of the items. An exception from reading the items is
        raised after all earlier items. Closing the generator ends the thread; if the function does not return within
        5 seconds, as it waits for a network, the thread is left alone and does not keep the program from ending.

    Raises:
        ValueError: ``ahead`` is less than 1.
    """
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    calls: queue.SimpleQueue[tuple[_Item, Future[_Result]] | None] = queue.SimpleQueue()
    thread = threading.Thread(target=_work, args=(function, calls), name="dynpose-ahead", daemon=True)
    thread.start()
    pending: deque[tuple[_Item, Future[_Result]]] = deque()
    iterator, failure, is_finished = iter(items), None, False
    try:
        while pending or not is_finished:
            while not is_finished and len(pending) < ahead:
                try:
                    call = next(iterator), Future[_Result]()
                except StopIteration:
                    is_finished = True
                except Exception as error:
                    is_finished, failure = True, error
                else:
                    pending.append(call)
                    calls.put(call)
            if pending:
                yield pending.popleft()
        if failure is not None:
            raise failure
    finally:
        for _, future in pending:
            future.cancel()
        calls.put(None)
        thread.join(timeout=_SECONDS_TO_STOP)


def _work(function, calls):
    while (call := calls.get()) is not None:
        item, future = call
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = function(item)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        # neither is kept while the thread waits
        del call, item, future
