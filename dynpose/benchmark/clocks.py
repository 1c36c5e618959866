"""Clocks, and the peak rates of the machine.

A clock calls a function and returns (seconds, the host's seconds to queue it or None).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

# the size of the buffer that is overwritten to keep a CUDA device busy, several times its cache
_FILL_BYTES = 2**28
_MAX_FILLS = 64

Clock = Callable[[Callable[[], Any]], tuple[float, float | None]]


def make_clock(device: torch.device) -> Clock:
    """Make the clock of a device: events on a GPU, the wall clock on a CPU."""
    return DeviceClock(device) if device.type == "cuda" else make_wall_clock(device)


def make_wall_clock(device: torch.device) -> Clock:
    """Make a clock that measures the time until the result of a call is available.

    On a GPU this is the time that a user waits: the host's time plus the device's, less their overlap. There is no
    separate time to queue.
    """

    def wall_clock(call):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        return time.perf_counter() - start, None

    return wall_clock


def make_cpu_clock() -> Clock:
    """Make a clock that measures the CPU time of all threads of this process, user and system.

    Unlike the wall clock it does not count the time in which other processes have the cores. Threads that spin at
    barriers are counted: measure with one, or with OMP_WAIT_POLICY=PASSIVE.
    """

    def cpu_clock(call):
        start = time.process_time()
        call()
        return time.process_time() - start, None

    return cpu_clock


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all queued work; a no-op for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class DeviceClock:
    """Times the work of a CUDA device with CUDA events.

    Queuing a call may take the host longer than running it takes the device. Therefore the device is kept busy
    overwriting a buffer until the whole call is queued, so that only the device's time is measured. Overwriting also
    evicts the data of earlier calls from the cache.

    Args:
        device: runs on its current stream.
    """

    def __init__(self, device: torch.device):
        self._buffer = torch.empty(_FILL_BYTES, dtype=torch.uint8, device=device)
        self._fills = 1

    def __call__(self, call: Callable[[], Any]) -> tuple[float, float]:
        """Return the device's seconds for a call and the host's seconds to queue it."""
        while True:
            seconds, host_seconds, was_busy = self._time(call)
            # If the call itself waits for the device, no number of fills is enough.
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
    """The peak rates of the machine.

    Attributes:
        flops: FLOPs per second in a large matrix product, a multiply-add counted as two.
        bandwidth: bytes read and written per second in a large copy.
    """

    flops: float
    bandwidth: float

    def floor(self, flops: int, num_bytes: int) -> tuple[float, str]:
        """Return the minimum seconds for the work, and the rate that bounds it."""
        return max((flops / self.flops, "matrix rate"), (num_bytes / self.bandwidth, "bandwidth"))


def measure_rates(device: torch.device, dtype: torch.dtype, clock: Clock, repeats: int = 9) -> Rates:
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
