"""Named intermediate results of models, for figures and analyses.

A model calls :func:`provide` at the points of its inference that a paper's figures show. Outside of
:func:`collect_intermediates` the call does nothing, so that prediction, ``torch.compile`` and exported files are the
same with and without it. Each method's ``figures.py`` lists its names with their shapes and units.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from .exporting import is_recording

__all__ = ["collect_intermediates", "provide"]


class _Collection:
    """The results of one context; of other threads' models, none."""

    def __init__(self):
        self.results: dict[str, list[Tensor]] = {}
        self.thread = threading.get_ident()


_collection: _Collection | None = None


@contextmanager
def collect_intermediates() -> Iterator[dict[str, list[Tensor]]]:
    """Collect the intermediate results that models provide in this thread.

    Contexts may be nested: the innermost one collects. Only one thread at a time may collect.

    Yields:
        dict[str, list[Tensor]]: filled while models run. A name that is provided several times, such as in each stage
        or for each chunk of people, has one value for each time, in order. Values are detached, on the model's device.

    Raises:
        RuntimeError: another thread is collecting.

    Example::

        >>> with torch.no_grad(), collect_intermediates() as results:
        ...     people = predictor(image)
        >>> results["heatmaps"][0].shape
        torch.Size([4, 17, 100, 152])
    """
    global _collection
    before = _collection
    if before is not None and before.thread != threading.get_ident():
        raise RuntimeError("intermediate results are being collected in another thread; wait until it has ended")
    _collection = _Collection()
    try:
        yield _collection.results
    finally:
        _collection = before


def provide(function: Callable[[], Mapping[str, Tensor]]) -> None:
    """Provide intermediate results to :func:`collect_intermediates`; otherwise, do nothing.

    One function gives all results of a point, since several of them often follow from one computation.

    Args:
        function: name -> result. It is called only while results are collected, without gradients, and never while an
            exporter or a trace records the model. It may compute what inference avoids, such as whole heatmaps.
    """
    # first, so that torch.compile meets a constant
    if _collection is None:
        return
    if is_recording() or _collection.thread != threading.get_ident():
        return
    with torch.no_grad():
        for name, value in function().items():
            # a copy: inference may overwrite its tensors in place
            _collection.results.setdefault(name, []).append(value.detach().clone())
