"""The time of each part of a model within a whole call, as in Figure 5a of the CID paper."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn

from dynpose.benchmark.clocks import Clock
from dynpose.methods import find_method

_OTHER = "other"


def time_parts(model: nn.Module, call: Callable[[], Any], clock: Clock, rounds: int) -> dict[str, float]:
    """Time the parts of a model within whole calls.

    On a GPU the device is synchronised at both ends of each part, so a whole call takes slightly longer than one timed
    alone.

    Args:
        model: of a registered method, whose slot ``parts`` names them.
        call: runs the model once.
        clock: of whole calls, see :mod:`dynpose.benchmark.clocks`.
        rounds: number of timed calls, after one warm-up call.

    Returns:
        Median seconds of each part, and of "other", the rest of the call; empty for an unregistered model.
    """
    method = find_method(type(model))
    if method is None:
        return {}
    calls = []
    for _ in range(1 + rounds):
        seconds = Counter(dict.fromkeys(method.parts, 0.0))
        with contextlib.ExitStack() as context:
            for part, paths in method.parts.items():
                for path in paths:
                    context.enter_context(_timed(model, path, clock, part, seconds))
            total, _ = clock(call)
        calls.append({**seconds, _OTHER: total - sum(seconds.values())})
    return {part: statistics.median(each[part] for each in calls[1:]) for part in calls[0]}


@contextlib.contextmanager
def _timed(model, path, clock, part, seconds):
    """While entered, add the seconds of every call of an attribute to those of its part."""
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, model)
    attribute = getattr(owner, name)
    # Replace a module's ``forward``, since calls must go through its hooks, which inject detections.
    owner, name = (attribute, "forward") if hasattr(attribute, "forward") else (owner, name)
    timed = getattr(owner, name)

    @functools.wraps(timed)
    def with_clock(*args, **kwargs):
        results = []
        seconds[part] += clock(lambda: results.append(timed(*args, **kwargs)))[0]
        return results.pop()

    # On the instance, shadowing the class's method; injecting detections may have set the attribute before.
    before = owner.__dict__.get(name)
    setattr(owner, name, with_clock)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
