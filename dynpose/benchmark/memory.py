"""The memory that a call takes, and calls in fresh processes."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch

OUT_OF_MEMORY = "out of memory"
# in the messages of errors without a class for it
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "CUDA out of memory", "_STATUS_ALLOC_FAILED")


def extra_memory(case, name: str, device: torch.device) -> int | None:
    """Measure the bytes that one call holds at its peak beyond its inputs, after one call to warm up.

    On a GPU it is the rise of ``torch.cuda.max_memory_allocated``. On a CPU, which has no such counter, the call is
    made in a fresh process, and it is the rise of that process's highest resident memory (VmHWM of /proc).

    Args:
        case: see :mod:`.measure`.
        name: which of its calls.
        device: to run on.

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
    return with_peak_memory(partial(case.run, name, inputs))[1]


def with_peak_memory(call: Callable) -> tuple:
    """Make a call, and measure how far it raises the highest resident memory of this process.

    Returns:
        The result and the bytes; None in place of these where the system does not tell.
    """
    try:
        # proc(5): the highest resident memory starts again from the present one
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return call(), None
    before = _highest_resident_memory()
    result = call()
    return result, _highest_resident_memory() - before


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
