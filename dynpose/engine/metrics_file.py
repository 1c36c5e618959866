"""``metrics.json`` of an interrupted run: no line appears twice, and smoothed metrics continue."""

import json
import logging
import os
from typing import Any

from detectron2.engine import hooks
from detectron2.utils.events import EventStorage, JSONWriter

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
# The number of values in the medians of detectron2's writers
_WINDOW = 20
# Timings of an earlier start say nothing about this one
_TIMINGS = ("time", "data_time", "rank_data_time", "eta_seconds")


def storage_state(storage: EventStorage) -> dict[str, dict[str, Any]]:
    """The state from which an EventStorage continues: the latest values of each metric.

    Args:
        storage (EventStorage)

    Returns:
        dict[str, dict]: by metric, for :func:`load_storage_state`. Timings are omitted.
    """
    smoothed = storage.smoothing_hints()
    return {
        name: {"smoothed": smoothed[name], "values": list(history.values()[-_WINDOW if smoothed[name] else -1 :])}
        for name, history in storage.histories().items()
        if name not in _TIMINGS
    }


def load_storage_state(storage: EventStorage, state: dict[str, dict[str, Any]]) -> None:
    """Load :func:`storage_state` into an EventStorage; its iteration is unchanged."""
    iteration = storage.iter
    for name, metric in state.items():
        for value, at in metric["values"]:
            storage.iter = at
            storage.put_scalar(name, value, smoothing_hint=metric["smoothed"])
    storage.iter = iteration


def cut_metrics(path: str, start_iteration: int) -> int:
    """Remove the lines that a resumed run writes again, from its first iteration on, and partial lines.

    Args:
        path (str): of a file of JSON lines. A writer may have it open for appending.
        start_iteration (int): the first iteration of the resumed run.

    Returns:
        int: the last remaining iteration; -1 = none.
    """
    try:
        with open(path, "r+b") as f:
            lines = f.readlines()
            iterations = [_iteration(line) for line in lines]
            kept = [i for i, at in enumerate(iterations) if at is not None and at < start_iteration]
            if len(kept) < len(lines):
                # in place, because an open writer would append to the replaced file; usually only the end is cut off
                same = next((i for i, place in enumerate(kept) if i != place), len(kept))
                f.seek(sum(map(len, lines[:same])))
                f.write(b"".join(lines[i] for i in kept[same:]))
                f.truncate()
    except FileNotFoundError:
        return -1
    except OSError as error:
        logger.warning(
            f"{path}: repeated iterations can't be removed ({error}): they appear twice, and the later lines count"
        )
        return -1
    return max((iterations[i] for i in kept), default=-1)


def _iteration(line):
    try:
        iteration = json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return None
    return iteration if isinstance(iteration, int) and line.endswith(b"\n") else None


class MetricsHook(hooks.HookBase):
    """Continues ``metrics.json`` from the checkpoint, as if the run had not been interrupted.

    Args:
        folder (str): of the run.

    Attributes:
        resumes (bool): whether the run resumes from the folder.
        state (dict): :func:`storage_state` of the checkpoint; empty without one.
    """

    def __init__(self, folder: str):
        self._path = os.path.join(folder, METRICS_FILE)
        self.resumes = False
        self.state: dict[str, dict[str, Any]] = {}
        self._overdue: list[JSONWriter] = []

    def before_train(self) -> None:
        """Restore the metrics, and cut off lines of iterations that will be repeated."""
        load_storage_state(self.trainer.storage, self.state)
        if not self.resumes:
            return
        start = self.trainer.start_iter
        for hook in self.trainer._hooks:  # in the main process
            if not isinstance(hook, hooks.PeriodicWriter):
                continue
            last = cut_metrics(self._path, start)
            writers = [writer for writer in hook._writers if isinstance(writer, JSONWriter)]
            for writer in writers:
                # otherwise it writes the restored metrics as if they were new
                writer._last_write = last
            is_due = start % hook._period == 0 or start >= self.trainer.max_iter
            if self.state and is_due and last < start - 1:
                self._overdue = writers

    def before_step(self) -> None:
        """Write the line of the last iteration before the checkpoint, if the run was killed in between."""
        while self._overdue:
            self._overdue.pop().write()

    def after_train(self) -> None:
        """Write it if no iteration is left, before the last evaluation replaces it."""
        self.before_step()
