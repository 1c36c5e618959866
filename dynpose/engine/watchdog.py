"""Reporting stalled jobs: one stopped or swapped-out process blocks all others, and the log should name it.

Every few seconds each process writes a heartbeat with its progress to the process group's store. A process that makes
no progress for a while reads the heartbeats of the others, and logs which are silent and which are behind.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch.distributed as dist
import torch.utils.data.dataloader
from detectron2.evaluation import evaluator
from detectron2.utils import comm

from . import checkpointing, evaluating

__all__ = ["watched"]

logger = logging.getLogger(__name__)

_KEY = "dynpose/heartbeat/{}"
_SET_UP, _TRAINING = "set-up", "training"
# The phase of a process while a function of the module runs; the first match counts
_PHASES = (
    (evaluating.__name__, "evaluation"),
    (evaluator.__name__, "evaluation"),
    (checkpointing.__name__, "checkpoint"),
    (torch.utils.data.dataloader.__name__, "waiting for images"),
)
# The order of the phases in an iteration
_ORDER = (_SET_UP, "waiting for images", _TRAINING, "checkpoint", "evaluation")
_MAX_SECONDS_BETWEEN_BEATS = 5.0
_NAMED = 8
# The watchdog of this process, if any
_running: list[_Watchdog] = []


@contextmanager
def watched(seconds: float, iteration: Callable[[], int] | None = None) -> Iterator[None]:
    """Log which processes hold up the job while the block runs in all of them; with one process, do nothing.

    A nested block only replaces the source of the iteration.

    A process that has not finished an iteration for ``seconds`` names the silent processes and those behind it, with
    their machines and phases; it repeats this after every further ``seconds``. It logs nothing while all are at the
    same point, such as in a long evaluation. If process 0, whose log is shown on the screen, is silent, the next
    responsive process prints the line.

    Args:
        seconds (float): DISTRIBUTED.REPORT_SECONDS; 0 = do nothing.
        iteration (Callable[[], int] | None): the iteration of this process; called from another thread. None = the run
            is being set up.

    Example::

        >>> with watched(60, lambda: trainer.iter):
        ...     trainer.train()
    """
    if comm.get_world_size() == 1 or seconds <= 0:
        yield
        return
    if _running:
        with _running[0].following(iteration):
            yield
        return
    watchdog = _Watchdog(seconds)
    watchdog.start()
    _running.append(watchdog)
    try:
        with watchdog.following(iteration):
            yield
    finally:
        _running.remove(watchdog)
        watchdog.stop()


class _Note(NamedTuple):
    """The heartbeat of a process."""

    beat: int
    host: str
    pid: int
    iteration: int
    phase: str

    @property
    def place(self):
        return self.iteration, _ORDER.index(self.phase)

    def __str__(self):
        return f"at iteration {self.iteration}, {self.phase}"


class _Watchdog:
    """Two threads: one reports, the other accesses the store, which blocks if the process that hosts it is stopped."""

    def __init__(self, seconds):
        self._iteration, self._phase = lambda: 0, _SET_UP
        self._seconds = seconds
        self._interval = min(_MAX_SECONDS_BETWEEN_BEATS, seconds / 12)
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()
        self._host = socket.gethostname()
        self._watched_thread = threading.get_ident()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._exchange, self._report)]
        self._beat, self._last, self._since = 0, None, time.monotonic()
        # reports since self._since
        self._num_reports, self._has_logged = 0, False
        # by rank: the last heartbeat, and when it was first seen
        self._notes = {}
        self._answered = time.monotonic()

    def start(self):
        self._store = _own_connection(dist.distributed_c10d._get_default_store())
        for thread in self._threads:
            thread.start()
        # A thread that returns from the store after the interpreter has exited would abort the process
        atexit.register(self.stop)

    @contextmanager
    def following(self, iteration):
        """Use a function's iterations while the block runs, and its last one afterwards."""
        if iteration is None:
            yield
            return
        self._iteration, self._phase = iteration, _TRAINING
        try:
            yield
        finally:
            last = iteration()
            self._iteration = lambda: last

    def stop(self):
        atexit.unregister(self.stop)
        self._stopped.set()
        for thread in self._threads:
            thread.join(self._interval)

    def _exchange(self):
        """Write this process's heartbeats, and read those of the others while it is waiting."""
        try:
            while True:
                self._beat += 1
                self._store.set(_KEY.format(self._rank), json.dumps(self._here()))
                self._read([0] if time.monotonic() - self._since < self._seconds / 3 else range(self._world_size))
                self._answered = time.monotonic()
                if self._stopped.wait(self._interval):
                    return
        except RuntimeError as error:
            # the job ends with the process that hosts the store
            if not self._stopped.is_set():
                logger.info("Can no longer report which processes the job waits for: %s", str(error).splitlines()[0])

    def _read(self, ranks):
        for rank in ranks:
            key = _KEY.format(rank)
            if rank == self._rank or not self._store.check([key]):
                continue
            note = _Note(*json.loads(self._store.get(key)))
            if rank not in self._notes or self._notes[rank][0].beat != note.beat:
                self._notes[rank] = note, time.monotonic()

    def _here(self):
        phase = _phase_of(self._watched_thread) or self._phase
        return _Note(self._beat, self._host, os.getpid(), self._iteration(), phase)

    def _report(self):
        before = time.monotonic()
        while not self._stopped.wait(self._interval):
            iteration, now = self._iteration(), time.monotonic()
            if now - before > self._interval + self._seconds / 4:
                self._forget_times(now, now - before)
            elif iteration != self._last:
                if self._has_logged:
                    logger.warning("The run continues after %.0f s", now - self._since)
                self._last, self._since, self._num_reports, self._has_logged = iteration, now, 0, False
            elif now - self._since >= self._seconds * (self._num_reports + 1):
                self._num_reports += 1
                self._log_stall(now)
            before = now

    def _forget_times(self, now, seconds):
        """Reset the timers after this process itself was stopped, so that the others do not count as silent."""
        logger.warning("This process was stopped for %.0f s", seconds)
        self._answered = self._since = now
        self._notes = {rank: (note, now) for rank, (note, _) in dict(self._notes).items()}

    def _log_stall(self, now):
        if now - self._answered > self._seconds / 2:
            # the store is silent, so the heartbeats are out of date
            host = f" on {self._notes[0][0].host}" if 0 in self._notes else ""
            store_host = f"process 0{host}, or torchrun, which hosts the store of the heartbeats"
            silent, behind = {0: f"{store_host}, for {now - self._answered:.0f} s"}, {}
        else:
            silent = self._silent(now)
            behind = self._behind(set(range(self._world_size)) - set(silent))
        parts = [f"no heartbeat from: {_first(silent)}"] * bool(silent) + [f"behind: {_first(behind)}"] * bool(behind)
        if not parts:
            return
        self._has_logged = True
        message = f"{now - self._since:.0f} s without an iteration, {self._here()}; {'; '.join(parts)}"
        logger.warning("%s", message)
        # the logs of the other processes go to their files only
        if 0 in silent and self._rank == min(set(range(self._world_size)) - set(silent)):
            print(f"process {self._rank}: {message}", file=sys.stderr, flush=True)

    def _silent(self, now):
        """The processes without a heartbeat for half of ``seconds``, by rank."""
        silent = {}
        for rank in set(range(self._world_size)) - {self._rank}:
            if rank not in self._notes:
                silent[rank] = f"process {rank}, which has not started"
                continue
            note, seen = self._notes[rank]
            if now - seen > self._seconds / 2:
                silent[rank] = f"{_name(rank, note)}, for {now - seen:.0f} s, last {note}"
        return silent

    def _behind(self, ranks):
        """Those of the ranks that are behind this process, by rank."""
        here = self._here().place
        notes = {rank: self._notes[rank][0] for rank in ranks if rank != self._rank}
        return {rank: f"{_name(rank, note)}, {note}" for rank, note in notes.items() if note.place < here}


def _name(rank, note):
    return f"process {rank} on {note.host} (pid {note.pid})"


def _first(named):
    listed = "; ".join(named[rank] for rank in sorted(named)[:_NAMED])
    return f"{listed}; {len(named) - _NAMED} more" if len(named) > _NAMED else listed


def _phase_of(thread):
    """The phase of a thread of this process, from the modules on its stack; None if unknown."""
    frame, modules = sys._current_frames().get(thread), set()
    while frame is not None:
        modules.add(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return next((phase for module, phase in _PHASES if module in modules), None)


def _own_connection(store):
    """A clone of the store, to query without blocking its other users; the store itself if it can't be cloned."""
    return store.clone() if hasattr(store, "clone") else store
