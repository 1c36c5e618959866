"""Iterating in a second thread."""

import threading

import pytest

from dynpose.video import in_background, newest


def counting(seen, number=10, failure=None):
    try:
        for index in range(number):
            seen.append((index, threading.current_thread()))
            yield index
        if failure:
            raise failure
    finally:
        seen.append("closed")


def test_items_come_in_order_from_another_thread():
    seen = []
    assert list(in_background(counting(seen), ahead=3)) == list(range(10))
    assert threading.current_thread() not in {thread for _, thread in seen[:-1]}
    assert seen[-1] == "closed"


def test_it_is_ahead_by_a_bounded_number():
    seen, semaphore = [], threading.Semaphore(0)

    def items():
        for index in range(10):
            seen.append(index)
            semaphore.release()
            yield index

    stream = in_background(items(), ahead=3)
    assert next(stream) == 0
    for _ in range(4):
        assert semaphore.acquire(timeout=10)
    assert seen == [0, 1, 2, 3]
    stream.close()
    assert not [thread for thread in threading.enumerate() if "dynpose-ahead" in thread.name]


def test_a_failure_comes_in_its_place():
    stream = in_background(counting([], 2, OSError("gone")), ahead=4)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_closing_closes_the_items():
    seen = []
    stream = in_background(counting(seen), ahead=1)
    next(stream)
    stream.close()
    assert seen[-1] == "closed"


def test_a_slow_consumer_of_a_live_source_gets_the_newest_item():
    taken, produced = threading.Event(), threading.Event()

    def items():
        yield 0
        assert taken.wait(10)
        yield from (1, 2, 3)
        produced.set()

    stream = newest(items())
    assert next(stream) == 0
    taken.set()
    assert produced.wait(10)
    assert list(stream) == [3]


def test_a_live_failure_comes_after_the_last_item():
    stream = newest(counting([], 1, OSError("unplugged")))
    assert next(stream) == 0
    with pytest.raises(OSError, match="unplugged"):
        next(stream)
