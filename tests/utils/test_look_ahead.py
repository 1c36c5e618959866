"""Batches out of a mixed stream, by hand: 'a1' is the first item of kind a."""

import pytest

from dynpose.utils.look_ahead import in_batches


def run(stream, *, batch_size, look_ahead):
    """Results in their order, and the batches in the order of their processing."""
    batches = []

    def process(items):
        batches.append(items)
        return [item.upper() for item in items]

    results = list(in_batches(stream, lambda item: item[0], process, batch_size=batch_size, look_ahead=look_ahead))
    return results, batches


@pytest.mark.parametrize(
    ("batch_size", "look_ahead", "batches"),
    [
        (1, 9, [["a1"], ["b1"], ["a2"], ["c1"], ["a3"], ["b2"]]),
        (2, 9, [["a1", "a2"], ["b1", "b2"], ["c1"], ["a3"]]),
        (3, 9, [["a1", "a2", "a3"], ["b1", "b2"], ["c1"]]),
        # b1 to a3 are held when c1's turn has not come
        (3, 3, [["a1", "a2"], ["b1"], ["c1"], ["a3"], ["b2"]]),
        (8, 1, [["a1"], ["b1"], ["a2"], ["c1"], ["a3"], ["b2"]]),
    ],
)
def test_batches_of_one_kind(batch_size, look_ahead, batches):
    stream = ["a1", "b1", "a2", "c1", "a3", "b2"]
    results, processed = run(stream, batch_size=batch_size, look_ahead=look_ahead)
    assert results == [(item, item.upper()) for item in stream]
    assert processed == batches


@pytest.mark.parametrize("look_ahead", [1, 2, 5])
def test_no_more_is_read_than_is_held(look_ahead):
    number_read = 0

    def stream():
        nonlocal number_read
        for number in range(20):
            number_read += 1
            yield f"{'abc'[number % 3]}{number}"

    pairs = in_batches(stream(), lambda item: item[0], list, batch_size=4, look_ahead=look_ahead)
    for given, (item, result) in enumerate(pairs, start=1):
        assert item == result
        assert number_read - (given - 1) <= look_ahead
    assert given == 20


def test_an_error_of_the_stream_comes_after_the_results_before_it():
    def stream():
        yield from ("a1", "b1", "a2")
        raise OSError("no such image")

    pairs = in_batches(stream(), lambda item: item[0], list, batch_size=8, look_ahead=8)
    assert [next(pairs)[0] for _ in range(3)] == ["a1", "b1", "a2"]
    with pytest.raises(OSError, match="no such image"):
        next(pairs)


def test_an_empty_stream():
    assert run([], batch_size=2, look_ahead=2) == ([], [])
