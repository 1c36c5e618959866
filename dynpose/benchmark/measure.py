"""Comparing calls in rounds: their memory, agreement and times."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import memory
from .agreement import Disagreement, Tolerance
from .case import Case, Inputs
from .clocks import Clock
from .memory import OUT_OF_MEMORY, ProcessDied, unless_out_of_memory

# Reasons for missing figures, besides OUT_OF_MEMORY
NOT_RUN, DISAGREES, CRASHED = "not run", "disagrees", "crashed"

_WARM_UP_ROUNDS = 2
# An alternative is no longer timed after both this total time and this number of rounds.
_ENOUGH_SECONDS, _ENOUGH_ROUNDS = 20.0, 5
# Bounds of the input sets. The size assumed for an unknown cache is larger than most caches.
_UNKNOWN_CACHE_BYTES = 2**26
_MAX_INPUT_BYTES = 2**30


@dataclass
class Measurement:
    """The measurement of one alternative in one case.

    Attributes:
        status: why there are no times: NOT_RUN, OUT_OF_MEMORY, CRASHED or DISAGREES; "" if there are.
        detail: of the status.
        seconds: of every timed call.
        host_seconds: on a GPU, the host's time to queue it.
        num_bytes: peak memory of a call beyond its inputs; None if it can't be measured.
    """

    status: str = ""
    detail: str = ""
    seconds: list[float] = field(default_factory=list)
    host_seconds: list[float] = field(default_factory=list)
    num_bytes: int | None = None

    @property
    def median(self) -> float | None:
        """Median seconds; None if there are no times."""
        return statistics.median(self.seconds) if self.seconds and not self.status else None

    def figures(self) -> dict[str, Any]:
        """Return plain values for a report; None for figures that were not measured."""
        seconds = self.median
        num_bytes = None if self.status == DISAGREES else self.num_bytes
        return {
            "status": self.status,
            "note": ": ".join(filter(None, (self.status, self.detail))),
            "rounds": len(self.seconds) if seconds else None,
            "ms": seconds and 1000 * seconds,
            "ms_quartiles": seconds and [1000 * x for x in _quartiles(self.seconds)],
            "mib": None if num_bytes is None else num_bytes / 2**20,
        }


def progress(name: str, figures: Mapping) -> str:
    """Format the result of a measurement for the terminal."""
    return f"{name} {figures['note'] or '{:.3f} ms'.format(figures['ms'])}"


def measure(
    case: Case[Inputs],
    names: Sequence[str],
    device: torch.device,
    clock: Clock,
    rounds: int,
    tolerance: Tolerance | None = None,
    not_run: Mapping[str, str] | None = None,
) -> dict[str, Measurement]:
    """Measure the alternatives of a case.

    Args:
        case: the inputs and alternatives.
        names: of the alternatives, in the order of a round.
        device: to run on.
        clock: see :mod:`.clocks`.
        rounds: number of timed rounds; fewer for slow alternatives.
        tolerance: tolerated difference from the results of the reference, ``case.reference``, or of the first
            alternative if the reference is not run; None = results are not compared.
        not_run: the names that can't be run, with reasons.

    Returns:
        One measurement for each name. Alternatives that can't be run, run out of memory or disagree have a status and
        no times.
    """
    measurements = {name: Measurement() for name in names}
    for name, reason in (not_run or {}).items():
        if name in measurements:
            measurements[name] = Measurement(NOT_RUN, reason)
    _measure_memory(case, measurements, device)
    inputs = make_input_sets(case, device, calls=(_WARM_UP_ROUNDS + rounds) * len(measurements))
    _run_once(case, measurements, inputs[0], tolerance)
    _measure_time(case, measurements, inputs, clock, rounds)
    return measurements


def _running(measurements):
    return [name for name, measurement in measurements.items() if not measurement.status]


def _measure_memory(case, measurements, device):
    for name in _running(measurements):
        try:
            num_bytes = unless_out_of_memory(memory.extra_memory, case, name, device)
        except ProcessDied as error:
            measurements[name].status, measurements[name].detail = CRASHED, str(error)
            continue
        if num_bytes is OUT_OF_MEMORY:
            measurements[name].status = OUT_OF_MEMORY
        else:
            measurements[name].num_bytes = num_bytes


def _run_once(case, measurements, inputs, tolerance):
    """Call each alternative, and compare the results if they must be the same."""
    expected, names = None, _running(measurements)
    if tolerance:
        names.sort(key=lambda name: name != case.reference)
    for name in names:
        result = unless_out_of_memory(case.run, name, inputs)
        if result is OUT_OF_MEMORY:
            measurements[name].status = OUT_OF_MEMORY
        elif tolerance and expected is None:
            expected = result
        elif tolerance:
            try:
                case.check(expected, result, inputs, tolerance)
            except Disagreement as disagreement:
                measurements[name].status, measurements[name].detail = DISAGREES, str(disagreement)


def _measure_time(case, measurements, inputs, clock, rounds):
    turns = itertools.cycle(inputs)
    for round_ in range(_WARM_UP_ROUNDS + rounds):
        for name in _running(measurements):
            measurement = measurements[name]
            if len(measurement.seconds) >= _ENOUGH_ROUNDS and sum(measurement.seconds) > _ENOUGH_SECONDS:
                continue
            arguments = next(turns)
            times = unless_out_of_memory(clock, lambda: case.run(name, arguments))  # noqa: B023  called at once
            if times is OUT_OF_MEMORY:
                measurement.status = OUT_OF_MEMORY
            elif round_ >= _WARM_UP_ROUNDS:
                measurement.seconds.append(times[0])
                measurement.host_seconds.append(times[1])


def make_input_sets(case: Case[Inputs], device: torch.device, calls: int) -> list[Inputs]:
    """Draw enough inputs that the cache no longer holds the first ones when they are read again.

    Args:
        case: the inputs and alternatives.
        device: of the inputs.
        calls: number of calls, which read one set each; more sets are not needed.

    Returns:
        At least two sets.
    """
    first = case.make_inputs(device, 0)
    size = sum(tensor.nbytes for tensor in first if tensor is not None)
    wanted = min(math.ceil(cache_bytes(device) / size) + 1, calls, _MAX_INPUT_BYTES // size)
    return [first, *(case.make_inputs(device, seed) for seed in range(1, max(2, wanted)))]


def cache_bytes(device: torch.device) -> int:
    """Size of the device's largest cache; an assumed size if unknown."""
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", _UNKNOWN_CACHE_BYTES)
    units = {"K": 2**10, "M": 2**20}
    sizes = [file.read_text().strip() for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=_UNKNOWN_CACHE_BYTES)


def _quartiles(values):
    if len(values) < 2:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]
