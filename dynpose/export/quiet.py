"""Silence for what exporters and runtimes report about their own steps."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings, log messages and standard output.

    A failed export logs its whole graph, and a quantisation each tensor. What goes wrong is raised as an exception, or
    is found by the check of the written file.
    """
    before = logging.root.manager.disable
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
