"""Experiment trackers as detectron2 EventWriters, named by the key EVENT_WRITERS."""

import logging
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter
from detectron2.utils.registry import locate

from dynpose.config import ConfigError

__all__ = ["GuardedWriter", "build_event_writers", "find_event_writers"]

logger = logging.getLogger(__name__)


def build_event_writers(cfg: CfgNode) -> list[EventWriter]:
    """Build the writers of EVENT_WRITERS.

    Args:
        cfg (CfgNode): of the run; each writer is called with it.

    Returns:
        list[EventWriter]: a failure to write is logged and does not end the training, see :class:`GuardedWriter`.

    Raises:
        ConfigError: see :func:`find_event_writers`, or a result is no EventWriter.
    """
    return [GuardedWriter(_build(name, build, cfg), name) for name, build in find_event_writers(cfg).items()]


def find_event_writers(cfg: CfgNode) -> dict[str, Callable[[CfgNode], Any]]:
    """Import the classes and functions of EVENT_WRITERS.

    Args:
        cfg (CfgNode)

    Returns:
        dict[str, Callable]: by dotted name.

    Raises:
        ConfigError: a name can't be imported, or is not callable.
    """
    return {name: _find(name) for name in cfg.EVENT_WRITERS}


class GuardedWriter(EventWriter):
    """Passes the metrics on to a writer, whose errors are logged: a tracker without a network must not end a training.

    Args:
        writer (EventWriter)
        name (str): for the log.
    """

    def __init__(self, writer: EventWriter, name: str):
        self.writer = writer
        self.name = name
        self._is_failing = False

    def write(self) -> None:
        """Write the metrics of the current iteration."""
        self._call(self.writer.write)

    def close(self) -> None:
        """Close the writer."""
        self._call(self.writer.close)

    def _call(self, function):
        try:
            function()
        except Exception:  # trackers raise errors of their own
            # once for each series of failures, not every 20 iterations
            if not self._is_failing:
                logger.warning("EVENT_WRITERS: %s fails; training continues without it", self.name, exc_info=True)
            self._is_failing = True
        else:
            self._is_failing = False


def _find(name):
    try:
        found = locate(name)
    except Exception as error:  # the user's module may raise anything when it is imported
        raise ConfigError(
            f"EVENT_WRITERS: {name!r} can't be imported ({error}); give a dotted name, module.Class, of a module in "
            "PYTHONPATH"
        ) from error
    if not callable(found):
        raise ConfigError(f"EVENT_WRITERS: {name!r} is a {type(found).__name__}, not a class or a function")
    return found


def _build(name, build, cfg):
    writer = build(cfg)
    if not isinstance(writer, EventWriter):
        raise ConfigError(f"EVENT_WRITERS: {name!r} returned a {type(writer).__name__}, not a detectron2 EventWriter")
    return writer
