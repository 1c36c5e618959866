"""Stopping a run on a signal, so that it can be resumed."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)

# EX_TEMPFAIL of sysexits.h, "try again later"; the exit code of a run that saved its state after a stop signal
RESUMABLE_EXIT_CODE = 75
# Windows has no SIGUSR1
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Records whether this process has been signalled.

    Attributes:
        number (int): of the signal; 0 = none so far.
        leave_at_once (bool): everything is saved, so a signal ends the process immediately with SystemExit.
    """

    def __init__(self):
        self.number = 0
        self.leave_at_once = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.number = number
        if self.leave_at_once:
            raise SystemExit(RESUMABLE_EXIT_CODE)


@contextmanager
def stop_signals(request: StopRequest) -> Iterator[None]:
    """Record SIGTERM and SIGUSR1 within the block instead of terminating.

    Outside the main thread, where Python can't handle signals, no signal is recorded.

    Args:
        request (StopRequest): records the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: it was not installed from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class StopHook(HookBase):
    """Ends a run with a checkpoint after the iteration in which any of its processes is signalled.

    After the last iteration the run is saved and only an evaluation is left: a signal then ends the process at once.

    Args:
        request (StopRequest): of this process.
        save (Callable[[], None]): saves a checkpoint; called by all processes.
    """

    def __init__(self, request: StopRequest, save: Callable[[], None]):
        self._request = request
        self._save = save
        self._group = None

    def before_train(self) -> None:
        """Get the process group for the agreement."""
        if comm.get_world_size() > 1 and dist.get_backend() != "gloo":
            # A collective over gloo does not wait for the GPUs
            self._group = comm._get_global_gloo_group()

    def after_step(self) -> None:
        """Save and stop if any process has been signalled."""
        if self.trainer.iter + 1 >= self.trainer.max_iter or not self._agree():
            return
        self._save()
        # A launcher kills the remaining processes when the first one has exited
        comm.synchronize()
        name = signal.Signals(self._request.number).name if self._request.number else "A signal to another process"
        logger.warning(
            f"{name}: stopped after iteration {self.trainer.iter}, which is saved; --resume continues from there. Exit "
            f"code {RESUMABLE_EXIT_CODE}"
        )
        raise SystemExit(RESUMABLE_EXIT_CODE)

    def after_train(self) -> None:
        """Stop instead of running the last evaluation if any process has been signalled."""
        if self.trainer.iter < self.trainer.max_iter:
            return
        self._request.leave_at_once = True
        if self._agree():
            raise SystemExit(RESUMABLE_EXIT_CODE)

    def _agree(self):
        """Whether any process is signalled; the same answer in all processes."""
        if comm.get_world_size() == 1:
            return self._request.number > 0
        signalled = torch.tensor(int(self._request.number > 0))
        dist.all_reduce(signalled, op=dist.ReduceOp.MAX, group=self._group)
        return bool(signalled)
