"""How time, memory and the machine's rates are measured.

A case (:class:`~.kp_net.KPNetCase`, :class:`~.released_loss.ReleasedLossCase`, :class:`~.models.ModelCase`) gives
inputs (``make_inputs``), runs a contestant on them (``run``), compares two results (``check``), and is picklable.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .contestants import REFERENCE, Disagreement, Tolerance, why_not

# rounds that are timed, if nothing else is asked for
ROUNDS = {"cuda": 50, "cpu": 7}

OUT_OF_MEMORY = "out of memory"
# in the messages of errors that have no class of their own
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "CUDA out of memory", "_STATUS_ALLOC_FAILED")

_WARM_UP_ROUNDS = 2
# A contestant that has taken so long in a case is timed no more, if it has been so often.
_ENOUGH_SECONDS, _ENOUGH_ROUNDS = 20.0, 5
# Bounds of the input sets. What is unknown is taken for larger than most caches.
_UNKNOWN_CACHE_BYTES = 2**26
_MAX_INPUT_BYTES = 2**30

# of the buffer that is overwritten to keep a CUDA device busy, several times its cache
_FILL_BYTES = 2**28
_MAX_FILLS = 64


@dataclass
class Measurement:
    """What was measured of one contestant in one case.

    Attributes:
        note: why there are no figures, or "".
        seconds: of every timed call.
        host_seconds: on a GPU, what the host took to queue it.
        num_bytes: held at the peak of a call beyond its inputs; None where that can't be measured.
    """

    note: str = ""
    seconds: list[float] = field(default_factory=list)
    host_seconds: list[float] = field(default_factory=list)
    num_bytes: int | None = None


def measure(
    case, names, device: torch.device, clock, rounds: int, tolerance: Tolerance | None = None
) -> dict[str, Measurement]:
    """Measure the contestants of a case, if they agree.

    Args:
        case: see above.
        names: of the contestants, in the order of a round.
        device: to run on.
        clock: from :func:`make_clock` or :func:`make_wall_clock`.
        rounds: number that are timed; fewer of a contestant that takes long.
        tolerance: of the agreement, for ``case.check``; None where that compares nothing.

    Returns:
        One measurement for each name. A contestant that can't run, runs out of memory or disagrees with the reference
        has a note and no times.
    """
    measurements = {name: Measurement(note=why_not(name, device, case.dtype)) for name in names}
    _measure_memory(case, measurements, device)
    inputs = make_input_sets(case, device, calls=(_WARM_UP_ROUNDS + rounds) * len(measurements))
    _check_agreement(case, measurements, inputs[0], tolerance)
    _measure_time(case, measurements, inputs, clock, rounds)
    return measurements


def _running(measurements):
    return [name for name, measurement in measurements.items() if not measurement.note]


def _measure_memory(case, measurements, device):
    for name in _running(measurements):
        num_bytes = unless_out_of_memory(extra_memory, case, name, device)
        if num_bytes is OUT_OF_MEMORY:
            measurements[name].note = OUT_OF_MEMORY
        else:
            measurements[name].num_bytes = num_bytes


def _check_agreement(case, measurements, inputs, tolerance):
    """Hold all results against the reference's, or the first where there is none."""
    expected = None
    for name in sorted(_running(measurements), key=lambda name: name != REFERENCE):
        result = unless_out_of_memory(case.run, name, inputs)
        if result is OUT_OF_MEMORY:
            measurements[name].note = OUT_OF_MEMORY
        elif expected is None:
            expected = result
        else:
            try:
                case.check(expected, result, inputs, tolerance)
            except Disagreement as disagreement:
                measurements[name].note = f"disagrees: {disagreement}"


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
                measurement.note = OUT_OF_MEMORY
            elif round_ >= _WARM_UP_ROUNDS:
                measurement.seconds.append(times[0])
                measurement.host_seconds.append(times[1])


def make_input_sets(case, device: torch.device, calls: int) -> list:
    """Draw so many inputs that when the first are read again, the cache no longer holds them.

    Args:
        case: see above.
        device: where to.
        calls: that will read one each; more sets are not needed.

    Returns:
        At least two sets.
    """
    first = case.make_inputs(device, 0)
    size = sum(tensor.nbytes for tensor in first if tensor is not None)
    wanted = min(math.ceil(cache_bytes(device) / size) + 1, calls, _MAX_INPUT_BYTES // size)
    return [first, *(case.make_inputs(device, seed) for seed in range(1, max(2, wanted)))]


def cache_bytes(device: torch.device) -> int:
    """Size of the device's largest cache; a guess where it is unknown."""
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", _UNKNOWN_CACHE_BYTES)
    units = {"K": 2**10, "M": 2**20}
    sizes = [file.read_text().strip() for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=_UNKNOWN_CACHE_BYTES)


def choose_device(name: str | None) -> torch.device:
    """Give the device of a name, or the GPU where there is one; a GPU with its index."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def make_clock(device: torch.device):
    """Make a function that takes a function, calls it, and gives (seconds, the host's seconds to queue it or None)."""
    return DeviceClock(device) if device.type == "cuda" else _cpu_clock


def make_wall_clock(device: torch.device):
    """Make a function like that of :func:`make_clock` which gives the time until the result of a call is there.

    On a GPU that is the host's time and the device's, as far as they do not overlap: what a user waits for. There is no
    time to queue beside it.
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


def _cpu_clock(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start, None


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


def quartiles(values) -> list[float]:
    """Give the first and the third quartile."""
    if len(values) < 2:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def _median_seconds(clock, call, repeats):
    call()
    return statistics.median(clock(call)[0] for _ in range(repeats))


def extra_memory(case, name: str, device: torch.device) -> int | None:
    """Bytes that one call of a contestant holds at its peak beyond its inputs, after one call to warm up.

    On a GPU it is the rise of torch.cuda.max_memory_allocated. On a CPU, which has no such counter, the contestant runs
    in a process of its own, and it is the rise of that process's highest resident memory (VmHWM of /proc).

    Returns:
        None where it can't be measured.
    """
    if device.type == "cuda":
        return _extra_memory_cuda(case, name, device)
    # Freed tensors go back to the system at once, so that they count when allocated again.
    environment = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    return in_fresh_process(_extra_memory_cpu, case, name, torch.get_num_threads(), environment=environment)


def _extra_memory_cuda(case, name, device):
    inputs = case.make_inputs(device, 0)
    case.run(name, inputs)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    case.run(name, inputs)
    return torch.cuda.max_memory_allocated(device) - before


def _extra_memory_cpu(case, name, threads):
    torch.set_num_threads(threads)
    inputs = case.make_inputs(torch.device("cpu"), 0)
    case.run(name, inputs)
    try:
        # proc(5): the highest resident memory starts again from the present one
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _highest_resident_memory()
    case.run(name, inputs)
    return _highest_resident_memory() - before


def _highest_resident_memory():
    # Not getrusage: on Linux its ru_maxrss begins with that of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[1]) * 1024


def in_fresh_process(function, *arguments, environment: dict[str, str]):
    """Call a function in a new Python process and give its result.

    Args:
        function: of a module, so that the other process finds it.
        *arguments: for it, picklable.
        environment: variables to set in the process.

    Raises:
        BrokenProcessPool: if the process was killed, as the system does where memory does not suffice.
    """
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def unless_out_of_memory(function, *arguments):
    """Call a function and give its result, or OUT_OF_MEMORY where the memory does not suffice."""
    try:
        return function(*arguments)
    except (RuntimeError, MemoryError, BrokenProcessPool) as error:
        if not _is_out_of_memory(error):
            raise
    # Not before the handler's end: the error holds what the failed call allocated.
    torch.cuda.empty_cache()
    return OUT_OF_MEMORY


def _is_out_of_memory(error):
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError, BrokenProcessPool)):
        return True
    return any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)


@contextlib.contextmanager
def torch_settings(
    device: torch.device,
    *,
    threads: int | None = None,
    tf32: bool = False,
    cudnn_benchmark: bool = False,
    deterministic: bool = False,
):
    """Set what all contestants run under, and set it back afterwards.

    Args:
        device: if a GPU, it becomes the current one.
        threads: of the CPU; None leaves them.
        tf32: whether float32 factors may be rounded to TF32, in matrix products and in convolutions.
        cudnn_benchmark: whether cuDNN tries its algorithms.
        deterministic: whether the same inputs must give the same bits. Where an operation cannot, it warns and runs.
    """
    with contextlib.ExitStack() as after:
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
            after.callback(setattr, backend, "allow_tf32", backend.allow_tf32)
            backend.allow_tf32 = tf32
        after.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
        torch.backends.cudnn.benchmark = cudnn_benchmark
        after.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        after.callback(torch.set_num_threads, torch.get_num_threads())
        if threads:
            torch.set_num_threads(threads)
        if device.type == "cuda":
            after.enter_context(torch.cuda.device(device))
        yield
