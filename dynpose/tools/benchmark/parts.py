"""The time that each part of a model takes within a whole call, as in Figure 5a of the CID paper."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections import Counter

from dynpose.methods import find_method

from .measuring import synchronize

OTHER = "other"


def time_parts(model, call, device, rounds: int) -> dict[str, float]:
    """Time the parts of a model within whole calls.

    On a GPU the device is waited for at both ends of each part, so that a whole call takes a little longer than one
    that is timed alone.

    Args:
        model: of a registered method, whose slot ``parts`` names them.
        call: runs the model once.
        device: of the model.
        rounds: calls that are timed, after one to warm up.

    Returns:
        Median seconds of each part, and of "other", the rest of the call; empty for an unregistered model.
    """
    method = find_method(type(model))
    if method is None:
        return {}
    parts = method.parts
    calls = []
    for _ in range(1 + rounds):
        seconds = Counter()
        with contextlib.ExitStack() as context:
            for name, paths in parts.items():
                for path in paths:
                    context.enter_context(_timed(model, path, device, functools.partial(_add, seconds, name)))
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            total = time.perf_counter() - start
        calls.append({**{name: seconds[name] for name in parts}, OTHER: total - sum(seconds.values())})
    return {name: statistics.median(each[name] for each in calls[1:]) for name in calls[0]}


def _add(seconds, name, value):
    seconds[name] += value


@contextlib.contextmanager
def _timed(model, path, device, add):
    """While entered, report the seconds of every call of the attribute."""
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, model)
    part = getattr(owner, name)
    # A module is called through its hooks, by which detections are injected, so its ``forward`` is replaced.
    owner, name = (part, "forward") if hasattr(part, "forward") else (owner, name)
    timed = getattr(owner, name)

    @functools.wraps(timed)
    def with_clock(*args, **kwargs):
        synchronize(device)
        start = time.perf_counter()
        result = timed(*args, **kwargs)
        synchronize(device)
        add(time.perf_counter() - start)
        return result

    # On the instance, over the class's method; injecting detections may have put something there before.
    before = owner.__dict__.get(name)
    setattr(owner, name, with_clock)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
