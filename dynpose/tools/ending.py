"""The end of a program on an error: one line for a user's error, a traceback for a bug."""

import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["clean_on_sigterm", "exit_code"]

# 128 + the number of SIGTERM, as shells count
_TERMINATED = 143
_INSTALLER = Path(__file__).with_name("install_detectron2.py")


def exit_code(program: str, function: Callable[[], int | None], *, is_run: bool = False) -> int:
    """Run a program, and print a ConfigError, DatasetError, CheckpointError or OSError as one line.

    Args:
        program (str): its name, for that line.
        function (Callable[[], int | None]): the program.
        is_run (bool): whether this may be one of several processes of a job with the same error; only one prints it.

    Returns:
        int: the function's result, 0 for None; 2 = such an error, or detectron2 is missing; 130 = interrupted. Other
        errors are raised.
    """
    try:
        return function() or 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        if not is_run or not _is_reported_by_another(message):
            print(f"{program}: error: {message}", file=sys.stderr)
        return 2


def clean_on_sigterm(function: Callable[[], int | None]) -> int | None:
    """Run a function that ends on SIGTERM as on Ctrl-C: it removes what it has begun.

    Args:
        function (Callable[[], int | None]): of a command.

    Returns:
        int | None: the function's result; 143 = terminated.
    """
    from dynpose.utils.terminating import sigterm_raises

    try:
        with sigterm_raises(_Terminated):
            return function()
    except _Terminated:
        print("dynpose: terminated", file=sys.stderr)
        return _TERMINATED


class _Terminated(BaseException):
    """Raised on SIGTERM."""


def _message(error):
    """The message for an error of the user; None for an unexpected error."""
    if isinstance(error, ModuleNotFoundError) and error.name == "detectron2":
        return f"detectron2 is not installed: run python {_INSTALLER}"
    if not isinstance(error, _known_errors()):
        return None
    # PyTorch puts the traceback of a data worker into its error's message
    text = re.split(rf"^(?:\w+\.)*{type(error).__name__}: ", str(error), flags=re.MULTILINE)[-1]
    return " ".join(text.split())


def _known_errors():
    # OSError: files that are missing or can't be written
    try:
        from dynpose.checkpoint import CheckpointError
        from dynpose.config import ConfigError
        from dynpose.data import DatasetError
    except ModuleNotFoundError:  # without detectron2, none of them can have been raised
        return (OSError,)
    return ConfigError, DatasetError, CheckpointError, OSError


def _is_reported_by_another(message):
    """Whether another process of the job has printed the same message, or will.

    The first process to call this prints it. Before the process group exists, the first process of each machine does.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) > 0
    key = f"dynpose/reported/{hashlib.sha256(message.encode('utf-8', 'backslashreplace')).hexdigest()}"
    try:
        return dist.distributed_c10d._get_default_store().add(key, 1) > 1
    except RuntimeError:  # the store has ended with the process that hosted it
        return False
