"""The memory of a call, and calls in fresh processes."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from .case import Case

Result = TypeVar("Result")

OUT_OF_MEMORY = "out of memory"
# in messages of out-of-memory errors without a dedicated class
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "CUDA out of memory", "_STATUS_ALLOC_FAILED")


def extra_memory(case: Case, name: str, device: torch.device) -> int | None:
    """Measure the peak memory of one call beyond its inputs, in bytes, after one warm-up call.

    On a GPU it is the increase of ``torch.cuda.max_memory_allocated``. A CPU has no such counter: the call runs in a
    fresh process, and the result is the increase of its peak resident memory (VmHWM of /proc).

    Args:
        case: the inputs and alternatives.
        name: of the alternative.
        device: to run on.

    Returns:
        The bytes; None if they can't be measured.
    """
    if device.type == "cuda":
        return _extra_memory_cuda(case, name, device)
    # Freed tensors return to the system at once, so that they count when allocated again.
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
    return with_peak_memory(partial(case.run, name, inputs))[1]


def with_peak_memory(call: Callable[[], Result]) -> tuple[Result, int | None]:
    """Make a call, and measure how much it raises the peak resident memory of this process.

    Returns:
        The result and the bytes; None instead of the bytes if the system does not report them.
    """
    try:
        # proc(5): reset the peak resident memory to the current value
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return call(), None
    before = _highest_resident_memory()
    result = call()
    return result, _highest_resident_memory() - before


def _highest_resident_memory():
    # Not getrusage: on Linux its ru_maxrss starts at the parent process's value.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[1]) * 1024


def in_fresh_process(function: Callable[..., Result], *arguments: Any, environment: dict[str, str]) -> Result:
    """Call a function in a new Python process and return its result.

    Args:
        function: at module level, so that it can be pickled.
        *arguments: for it, picklable.
        environment: variables to set in the process.

    Raises:
        BrokenProcessPool: the process was killed, as the system does when it runs out of memory.
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


def unless_out_of_memory(function: Callable[..., Result], *arguments: Any) -> Result | str:
    """Call a function and return its result, or OUT_OF_MEMORY if it runs out of memory."""
    try:
        return function(*arguments)
    except (RuntimeError, MemoryError, BrokenProcessPool) as error:
        if not _is_out_of_memory(error):
            raise
    # After the handler, since the error keeps the failed call's tensors alive.
    torch.cuda.empty_cache()
    return OUT_OF_MEMORY


def _is_out_of_memory(error):
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError, BrokenProcessPool)):
        return True
    return any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)
