"""Applying a function in a thread ahead of the caller."""

import threading

import pytest

from dynpose.utils.ahead import map_ahead


def test_results_are_in_order_and_a_bounded_number_ahead():
    main, threads, read = threading.get_ident(), set(), []

    def items():
        for number in range(10):
            assert threading.get_ident() == main
            read.append(number)
            yield number

    def square(number):
        threads.add(threading.get_ident())
        return number**2

    for count, (number, future) in enumerate(map_ahead(square, items(), ahead=3), start=1):
        assert (number, future.result()) == (count - 1, (count - 1) ** 2)
        # this one, and two of which the thread computes the results
        assert len(read) == min(count + 2, 10)
    assert count == 10
    assert len(threads) == 1
    assert main not in threads


def test_the_function_runs_before_its_result_is_asked_for():
    started = threading.Event()
    calls = map_ahead(lambda number: number and started.set(), iter([0, 1]), ahead=2)
    next(calls)
    assert started.wait(timeout=60)
    calls.close()


def test_an_error_of_the_function_costs_its_item_only():
    futures = [future for _, future in map_ahead(lambda number: 6 // number, [1, 0, 2], ahead=2)]
    assert isinstance(futures.pop(1).exception(), ZeroDivisionError)
    assert [future.result() for future in futures] == [6, 3]


def test_an_error_of_the_items_comes_after_all_earlier_ones():
    def items():
        yield from (1, 2)
        raise OSError("disk full")

    calls = map_ahead(str, items(), ahead=8)
    assert [next(calls)[1].result() for _ in range(2)] == ["1", "2"]
    with pytest.raises(OSError, match="disk full"):
        next(calls)


def test_closing_ends_the_thread_without_the_other_items():
    release, called = threading.Event(), []

    def wait(number):
        called.append(number)
        release.wait(timeout=60)

    calls = map_ahead(wait, range(4), ahead=3)
    _, future = next(calls)
    threading.Timer(0.05, release.set).start()
    calls.close()
    assert future.done()
    assert called == [0]
    assert not any(thread.name == "dynpose-ahead" for thread in threading.enumerate())


def test_nothing_ahead_is_refused():
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        next(map_ahead(int, [1], ahead=0))
