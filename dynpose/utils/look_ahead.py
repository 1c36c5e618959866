"""Batching compatible images of a mixed stream, with the results in the order of the stream."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_batches(
    items: Iterable[_Item],
    kind: Callable[[_Item], Hashable],
    process: Callable[[list[_Item]], Sequence[_Result]],
    *,
    batch_size: int,
    look_ahead: int,
) -> Iterator[tuple[_Item, _Result]]:
    """Process a stream in batches of one kind.

    A batch is processed as soon as it is full. To fill it, the stream is read beyond the oldest item without a result;
    once ``look_ahead`` items are held, the batch of the oldest is processed even if it is not full.

    Args:
        items (Iterable): the stream, read lazily.
        kind (callable): item -> hashable; only items of one kind share a batch.
        process (callable): list of n items -> n results.
        batch_size (int): maximum number of items in a batch.
        look_ahead (int): maximum number of items held at once.

    Yields:
        tuple: item and result, in the order of the stream. An exception from reading the stream is re-raised after the
        results of all earlier items.
    """
    window, stream, failure = _Window(kind, process), iter(items), None
    while True:
        try:
            item = next(stream)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if window.add(item) == batch_size:
            window.process_with(item)
        if len(window) >= look_ahead:
            window.process_oldest()
        yield from window.finished()
    while len(window):
        window.process_oldest()
        yield from window.finished()
    if failure is not None:
        raise failure


class _Window:
    """The held items of a stream, oldest first."""

    def __init__(self, kind, process):
        self.kind = kind
        self.process = process
        # [item, list of its result, empty until it is processed]
        self.held = deque()
        self.waiting = {}

    def __len__(self):
        return len(self.held)

    def add(self, item):
        """Hold an item; return the number of waiting items of its kind."""
        entry = [item, []]
        self.held.append(entry)
        group = self.waiting.setdefault(self.kind(item), [])
        group.append(entry)
        return len(group)

    def process_with(self, item):
        """Process the waiting items of an item's kind."""
        group = self.waiting.pop(self.kind(item))
        for (_, results), result in zip(group, self.process([item for item, _ in group])):
            results.append(result)

    def process_oldest(self):
        """Process the oldest item, unless it has a result, and the waiting items of its kind."""
        item, results = self.held[0]
        if not results:
            self.process_with(item)

    def finished(self):
        """Release the items with a result and no unfinished older item; yield (item, result)."""
        while self.held and self.held[0][1]:
            item, (result,) = self.held.popleft()
            yield item, result
