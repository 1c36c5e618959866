"""The memory of a call, and calls in fresh processes."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from .case import Case

Result = TypeVar("Result")

OUT_OF_MEMORY = "out of memory"
# in messages of out-of-memory errors without a dedicated class
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "CUDA out of memory", "_STATUS_ALLOC_FAILED")


class ProcessDied(RuntimeError):
    """A fresh process ended without a result.

    Attributes:
        exit_code: of the process; negative = the number of the signal that ended it.
    """

    def __init__(self, exit_code: int):
        self.exit_code = exit_code
        reason = f"by signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        super().__init__(f"its process ended {reason}")


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
        ProcessDied: the process ended without a result.
        Exception: what the function raises.
    """
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    # else the end of the process would not be seen
    sender.close()
    try:
        with receiver:
            result, error, where = receiver.recv()
    except EOFError:
        process.join()
        assert process.exitcode is not None  # it has ended
        raise ProcessDied(process.exitcode) from None
    process.join()
    if error is not None:
        raise error from RuntimeError(f"in a fresh process:\n{where}")
    return result


def _send_result(sender, function, arguments):
    try:
        message = function(*arguments), None, ""
    except Exception as error:
        message = None, error, traceback.format_exc()
    sender.send(message)


def unless_out_of_memory(function: Callable[..., Result], *arguments: Any) -> Result | str:
    """Call a function and return its result, or OUT_OF_MEMORY if it runs out of memory."""
    try:
        return function(*arguments)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    # After the handler, since the error keeps the failed call's tensors alive.
    torch.cuda.empty_cache()
    return OUT_OF_MEMORY


def _is_out_of_memory(error):
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, ProcessDied):
        # SIGKILL, by which Linux ends a process when memory runs out
        return error.exit_code == -9
    return any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)
