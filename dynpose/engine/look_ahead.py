"""Batches of images that can share one, out of a stream of mixed ones, with the results in the order of the stream."""

from collections import deque


def in_batches(items, kind, process, *, batch_size, look_ahead):
    """Process a stream in batches of one kind.

    A batch is processed as soon as it is full. To fill it, the stream is read beyond the oldest item that has no result
    yet; once ``look_ahead`` items are held, the batch of the oldest is processed as it is.

    Args:
        items (Iterable): the stream, read lazily.
        kind (callable): item -> hashable; only items of one kind share a batch.
        process (callable): list of n items -> n results.
        batch_size (int): most items in a batch.
        look_ahead (int): most items that are held at once.

    Yields:
        tuple: item and result, in the order of the stream. An exception that reading the stream raises is passed on
        after the results of all items before it.
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
    """The items of a stream that are held, oldest first."""

    def __init__(self, kind, process):
        self.kind = kind
        self.process = process
        # [item, its results: none or one]
        self.held = deque()
        self.waiting = {}

    def __len__(self):
        return len(self.held)

    def add(self, item):
        """Hold an item; tell how many of its kind wait now."""
        entry = [item, []]
        self.held.append(entry)
        group = self.waiting.setdefault(self.kind(item), [])
        group.append(entry)
        return len(group)

    def process_with(self, item):
        """Process what waits of an item's kind."""
        group = self.waiting.pop(self.kind(item))
        for (_, results), result in zip(group, self.process([item for item, _ in group])):
            results.append(result)

    def process_oldest(self):
        """Process the oldest item, unless that has been done, and what waits of its kind."""
        item, results = self.held[0]
        if not results:
            self.process_with(item)

    def finished(self):
        """Let go of the items that have a result and wait for no older one: generates (item, result)."""
        while self.held and self.held[0][1]:
            item, (result,) = self.held.popleft()
            yield item, result
