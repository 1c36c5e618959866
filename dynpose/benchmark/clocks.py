"""How time is measured, and the rates that the machine reaches.

A clock takes a function, calls it, and returns (seconds, the host's seconds to queue it or None).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# of the buffer that is overwritten to keep a CUDA device busy, several times its cache
_FILL_BYTES = 2**28
_MAX_FILLS = 64

Clock = Callable[[Callable], tuple[float, float | None]]


def make_clock(device: torch.device) -> Clock:
    """Make the clock of a device: events on a GPU, the wall clock on a CPU."""
    return DeviceClock(device) if device.type == "cuda" else make_wall_clock(device)


def make_wall_clock(device: torch.device) -> Clock:
    """Make a clock that gives the time until the result of a call is there.

    On a GPU that is the host's time and the device's, as far as they do not overlap: what a user waits for. There is no
    separate time to queue.
    """

    def wall_clock(call):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        return time.perf_counter() - start, None

    return wall_clock


def synchronize(device: torch.device):
    """Wait until a device has done all that is queued; a CPU queues nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class DeviceClock:
    """Time the work of a CUDA device by its events.

    The host can need longer to queue a call than the device to run it. So the device is kept busy, by overwriting a
    buffer, until the whole call is queued: what is measured is the device's time. Overwriting also drives what earlier
    calls read and wrote out of the cache.

    Args:
        device: with a current stream to run on.
    """

    def __init__(self, device: torch.device):
        self._buffer = torch.empty(_FILL_BYTES, dtype=torch.uint8, device=device)
        self._fills = 1

    def __call__(self, call) -> tuple[float, float]:
        """Give the device's seconds for a call and the host's to queue it."""
        while True:
            seconds, host_seconds, was_busy = self._time(call)
            # Where a call itself waits for the device, no number of fills is enough.
            if was_busy or self._fills >= _MAX_FILLS:
                return seconds, host_seconds
            self._fills *= 2

    def _time(self, call):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(self._fills):
            self._buffer.zero_()
        start.record()
        host_start = time.perf_counter()
        call()
        host_seconds = time.perf_counter() - host_start
        end.record()
        was_busy = not start.query()
        end.synchronize()
        return start.elapsed_time(end) / 1000, host_seconds, was_busy


@dataclass(frozen=True)
class Rates:
    """What the machine can do at the most.

    Attributes:
        flops: operations in a second in a large matrix product, a multiply-add counted as two.
        bandwidth: bytes in a second in a large copy, those read and those written.
    """

    flops: float
    bandwidth: float

    def floor(self, flops: int, num_bytes: int) -> tuple[float, str]:
        """Give the seconds that work takes at the least, and which rate it is that bounds it."""
        return max((flops / self.flops, "matrix rate"), (num_bytes / self.bandwidth, "bandwidth"))


def measure_rates(device: torch.device, dtype: torch.dtype, clock, repeats: int = 9) -> Rates:
    """Measure a product of two square matrices of random numbers and a copy within the device's memory."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 1024
    left, right, product = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    matmul = _median_seconds(clock, lambda: torch.mm(left, right, out=product), repeats)

    source = torch.rand(2**28 if on_gpu else 2**26, device=device)  # 1 GiB, 256 MiB
    target = torch.empty_like(source)
    copy = _median_seconds(clock, lambda: target.copy_(source), repeats)
    return Rates(flops=2 * size**3 / matmul, bandwidth=2 * source.nbytes / copy)


def _median_seconds(clock, call, repeats):
    call()
    return statistics.median(clock(call)[0] for _ in range(repeats))
