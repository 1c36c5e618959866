"""Silence for what exporters and runtimes print about their own progress."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]

_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir", "openvino", "nncf")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings, and messages below errors of the exporters' loggers and of the root logger.

    onnxruntime's quantisation logs to the root logger. What goes wrong is raised as an exception or is found by the
    check of the written file.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        logging.getLogger().addFilter(_is_error)
        try:
            yield
        finally:
            logging.getLogger().removeFilter(_is_error)
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def _is_error(record):
    return record.levelno >= logging.ERROR
